"""Where datasets come from: the Hub, a file, a saved dataset, a folder of images, the demo.

Every source is brought to one shape, `Raw`: columns of text by role, and where each row stands, so that the dataset
stage judges rows without knowing their origin. Nothing here drops a row; a row that cannot be used is marked, with the
reason, for the stage to count. No code that came with a dataset runs: tables are read as data, and images only by
decoders that start no other program.

A pinned revision is a promise. The Hub's client falls back to whatever copy its cache holds when it cannot ask the Hub,
so the revision of what it hands over is checked.
"""

import hashlib
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from PIL import Image

from tessera import tablefiles, templates
from tessera.downloads import cached, patiently
from tessera.errors import UserError
from tessera.examples import IMAGE_FORMATS
from tessera.files import sha256_file, sha256_json
from tessera.hub import hub_trouble
from tessera.job import progress

ROLES = ("text", "label", "id", "subset", "split", "group")

# What the role of a further column begins with, and that of a column that a text is put together from.
FURTHER, PART = "columns.", "text."

UNDECODABLE, OVERSIZED = "undecodable image", "oversized image"
# Bytes of an encoded image. As many pixels as Pillow decodes at all take less, in any format.
LARGEST_IMAGE = 1 << 29

logger = logging.getLogger("tessera")


@dataclass(frozen=True)
class Images:
    """The images of a dataset: what fetches an encoded one by row, a digest of what each shows, and why where one shows nothing."""

    encoded: Callable[[int], bytes]
    digests: list[bytes]
    flaws: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """What a source holds, before anything is judged. `columns` are large_string arrays by role, null where missing."""

    columns: dict[str, pa.ChunkedArray]
    rows: int
    place: Callable[[int], str]
    revision: str | None = None
    sha256: str | None = None
    images: Images | None = None


def read(name: str, entry: dict[str, Any], generated: Path | None = None) -> Raw:
    """The rows of the dataset `name` that the config entry describes; `generated` is the table of a demo source."""
    source = entry["source"]
    if "images" in source:
        return _read_images(name, entry)
    wanted = _wanted(name, entry)
    if "hub" in source:
        raw = _read_hub(name, source, wanted)
    elif "saved" in source:
        raw = _read_saved(name, Path(source["saved"]), wanted)
    elif "file" in source:
        path = Path(source["file"])
        raw = _of_cells(name, tablefiles.read(path, name, wanted), sha256=sha256_file(path))
    elif generated is None:
        raise ValueError(f"dataset {name} is a demo dataset and no generated table was given")
    else:
        raw = _of_cells(name, tablefiles.read_parquet(generated, name, wanted))
    return _with_text(raw, entry["text"]) if "text" not in raw.columns and raw.images is None else raw


def _wanted(name: str, entry: dict[str, Any]) -> dict[str, str]:
    """Role -> column, for all that the entry asks for."""
    wanted = {role: entry[role] for role in ROLES if entry.get(role) is not None}
    wanted |= {f"{FURTHER}{column}": column for column in entry.get("columns", [])}
    if entry.get("image") is not None:
        del wanted["text"]
        return {tablefiles.IMAGE: entry["image"], **wanted}
    if wanted["text"] == wanted.get("label"):
        raise UserError(f"datasets.{name}.label", "text and label are the same column", "name the column of the labels")
    if "{" in wanted["text"]:
        template = wanted.pop("text")
        wanted |= {f"{PART}{column}": column for column in templates.columns(template, f"datasets.{name}.text")}
    return wanted


def _with_text(raw: Raw, template: str) -> Raw:
    """The rows with the text that a template makes of several columns; a row that lacks one of them has no text."""
    parts = {role: raw.columns.pop(role).to_pylist() for role in list(raw.columns) if role.startswith(PART)}
    named = [role.removeprefix(PART) for role in parts]
    texts = [
        None if None in row else templates.fill(template, dict(zip(named, row, strict=True)))
        for row in zip(*parts.values(), strict=True)
    ]
    raw.columns["text"] = pa.chunked_array([pa.array(texts, pa.large_string())])
    return raw


def _of_cells(name: str, cells: tablefiles.Cells, **origin: Any) -> Raw:
    return Raw(cells.columns, cells.rows, cells.place, images=_embedded(name, cells.images), **origin)


def _embedded(name: str, column: pa.ChunkedArray | None) -> Images | None:
    """The images that lie in a column of a table."""
    if column is None:
        return None
    digests, flaws = [], {}
    for row, value in enumerate(progress(column, f"reading images of {name}", len(column), "image")):
        digest, flaw = look(value.as_py() or b"")
        digests.append(digest)
        if flaw is not None:
            flaws[row] = flaw
    return Images(lambda row: column[row].as_py(), digests, flaws)


# --- Hugging Face datasets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A table of a dataset that comes in several, and what it is called: its `split`, and its `config` where several are read."""

    table: datasets.Dataset
    called: dict[str, str]


def _read_hub(name: str, source: dict[str, Any], wanted: dict[str, str]) -> Raw:
    key, hub = f"datasets.{name}.source", source["hub"]
    # Anything else, the library would take for a builder of its own, an address, or a folder that happens to be here.
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", hub):
        raise UserError(f"{key}.hub", f"'{hub}' is not a repository of the Hub", "write it as owner/name")
    if Path(hub).exists():
        raise UserError(
            f"{key}.hub", f"a folder '{hub}' lies here and hides the repository", "rename it, or use it as 'saved'"
        )
    splits, configs = source["splits"], source["configs"]
    if len(set(splits)) < len(splits):
        raise UserError(f"{key}.splits", "a split is listed twice", "list it once")
    named = configs or [source["config"]]
    for config in named:
        with hub_trouble(key, hub, splits[0]):
            _fetch_files(hub, config, source["revision"])
    parts = [
        Part(
            _load_split(key, source, config, split),
            {"split": split} if configs is None else {"config": config, "split": split},
        )
        for config in named
        for split in splits
    ]
    return _joined(name, hub, parts, wanted, subset=source["subset"], revision=source["revision"])


def _fetch_files(hub: str, config: str | None, revision: str) -> None:
    """Bring the files of a dataset into the cache that the library reads them from, held against their hashes."""
    builder = patiently(hub, lambda: datasets.load_dataset_builder(hub, name=config, revision=revision))
    here = f"hf://datasets/{hub}@{revision}/"
    for file in chain.from_iterable((builder.config.data_files or {}).values()):
        if file.startswith(here):
            cached(hub, file.removeprefix(here), repo_type="dataset", revision=revision)


def _load_split(key: str, source: dict[str, Any], config: str | None, split: str) -> datasets.Dataset:
    hub, revision = source["hub"], source["revision"]
    with hub_trouble(key, hub, split):
        part = patiently(hub, lambda: datasets.load_dataset(hub, name=config, split=split, revision=revision))
    _check_revision(key, hub, revision, part)
    return part


def _check_revision(key: str, hub: str, revision: str, part: datasets.Dataset) -> None:
    """Refuse a copy from the cache that is of another revision."""
    evidence = [str(file["filename"]) for file in part.cache_files] + list(part.info.download_checksums or {})
    if evidence and not any(revision in known for known in evidence):
        raise UserError(
            f"{key}.revision",
            f"the Hub could not be asked, and the cached copy of '{hub}' is not of revision {revision}",
            "run once with a network, or remove that copy from the cache of Hugging Face datasets",
        )


def _read_saved(name: str, folder: Path, wanted: dict[str, str]) -> Raw:
    if not folder.is_dir():
        raise UserError(
            str(folder), "there is no such folder", "check the path; it counts from the folder the command runs in"
        )
    try:
        saved = datasets.load_from_disk(str(folder.absolute()))
    except FileNotFoundError:
        raise UserError(
            str(folder),
            "this is not a complete folder of save_to_disk",
            "name the folder that holds dataset_info.json or dataset_dict.json",
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        # What a damaged folder makes of the library: bad JSON, bad Arrow, keys that are not there.
        raise UserError(
            str(folder), f"not readable as a saved dataset ({type(error).__name__}: {error})", "save it again"
        ) from None
    parts = list(saved.values()) if isinstance(saved, datasets.DatasetDict) else [saved]
    for file in (Path(file["filename"]) for part in parts for file in part.cache_files):
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(str(folder), f"its data lies outside of it, in '{file}'", "save it again")
    # Programs that work on a saved dataset leave their caches in its folder, which are no part of it.
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("cache-", ".")))
    digest = sha256_json([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in inside])
    several = isinstance(saved, datasets.DatasetDict)
    named = [Part(part, {"split": split}) for split, part in saved.items()] if several else [Part(saved, {})]
    return _joined(name, str(folder), named, wanted, sha256=digest)


def _joined(
    name: str,
    where: str,
    parts: list[Part],
    wanted: dict[str, str],
    subset: str | None = None,
    **origin: Any,
) -> Raw:
    """The parts one after the other, each row with its split's name unless the config names a column for it.

    `subset` says which of a part's names is the subset of its rows, if one is.
    """
    read = []
    for each in parts:
        part, called = each.table, each.called
        there = ", ".join([where, *(f"{kind} {what}" for kind, what in called.items())])
        tablefiles.check_columns(name, wanted, part.column_names)
        if part.num_rows == 0:
            raise UserError(there, "there are no rows", "leave the split out")
        names = {
            column: feature.names
            for column, feature in part.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        table = _arrow_table(there, part, sorted(set(wanted.values())))
        cells = tablefiles.arrow_cells(table, name, wanted, names, _rows_of(there))
        for role, kind in (("split", "split"), ("subset", subset)):
            if kind is not None and kind in called and role not in wanted:
                same = pa.repeat(pa.scalar(called[kind], pa.large_string()), cells.rows)
                cells.columns[role] = pa.chunked_array([same])
        read.append(cells)
    if not read:
        raise UserError(where, "there are no splits", "check that it was saved completely")
    _check_one_kind(name, wanted, read)
    columns = {
        role: pa.chunked_array([chunk for cells in read for chunk in cells.columns[role].chunks])
        for role in read[0].columns
    }
    images = [cells.images for cells in read if cells.images is not None]
    joined = pa.chunked_array([chunk for column in images for chunk in column.chunks]) if images else None
    rows = sum(cells.rows for cells in read)
    return Raw(columns, rows, _place_in(read), images=_embedded(name, joined), **origin)


def _arrow_table(there: str, part: datasets.Dataset, columns: list[str]) -> pa.Table:
    """Some columns of a dataset, once they are found to be sound: they are looked at where they lie in its files."""
    try:
        tablefiles.check_sound(part.data.table.select(columns))
        return part.select_columns(columns).with_format("arrow")[:]
    except (pa.ArrowException, IndexError) as error:
        raise UserError(there, f"its data is damaged ({error})", "save it or fetch it again") from None


def _rows_of(there: str) -> Callable[[int], str]:
    return lambda row: f"{there}, row {row}"


def _check_one_kind(name: str, wanted: dict[str, str], read: list[tablefiles.Cells]) -> None:
    for role, column in wanted.items():
        if role == tablefiles.IMAGE:
            continue
        kinds = {cells.kinds[role]: cells.place(0) for cells in read if cells.kinds[role] is not None}
        if len(kinds) > 1:
            found = "; ".join(f"{kind} at {place}" for kind, place in kinds.items())
            raise UserError(
                f"datasets.{name}.{role}", f"'{column}' is not the same in all splits ({found})", "leave a split out"
            )


def _place_in(read: list[tablefiles.Cells]) -> Callable[[int], str]:
    def place(row: int) -> str:
        for cells in read:
            if row < cells.rows:
                return cells.place(row)
            row -= cells.rows
        raise IndexError(row)

    return place


# --- folders of images -----------------------------------------------------------------------------------------------


def _read_images(name: str, entry: dict[str, Any]) -> Raw:
    """One example a file, labelled by its folder; a file beside the folders has no label, and hidden files are none."""
    folder = Path(entry["source"]["images"])
    for role in ("image", "id", "subset", "split", "group", "columns"):
        if entry.get(role):
            raise UserError(f"datasets.{name}.{role}", "a folder of images has no columns", "remove the key")
    if not folder.is_dir():
        raise UserError(
            str(folder), "there is no such folder", "check the path; it counts from the folder the command runs in"
        )
    found = _labelled_files(folder)
    if not found:
        raise UserError(str(folder), "the folder is empty", "put the images of each label in a folder of its own in it")
    digests, sums, flaws = [], [], {}
    for row, (_, path) in enumerate(progress(found, f"reading images of {name}", len(found), "image")):
        sums.append(sha256_file(path))
        digest, flaw = look(path.read_bytes()) if path.stat().st_size <= LARGEST_IMAGE else (b"", OVERSIZED)
        digests.append(digest)
        if flaw is not None:
            flaws[row] = flaw
    paths = [path for _, path in found]
    ids = [path.relative_to(folder).as_posix() for path in paths]
    columns = {"id": ids, "label": [label for label, _ in found]}
    return Raw(
        {role: pa.chunked_array([pa.array(values, pa.large_string())]) for role, values in columns.items()},
        len(found),
        lambda row: str(paths[row]),
        sha256=sha256_json(list(map(list, zip(ids, sums, strict=True)))),
        images=Images(lambda row: paths[row].read_bytes(), digests, flaws),
    )


def _labelled_files(folder: Path) -> list[tuple[str | None, Path]]:
    """Label and path of every file, sorted by path; None for a file that lies in no label's folder."""
    found: list[tuple[str | None, Path]] = []
    for entry in _visible(folder):
        if entry.is_file():
            found.append((None, entry))
            continue
        if not entry.is_dir():
            raise UserError(str(entry), "this is neither a file nor a folder", "remove it")
        inside = _visible(entry)
        if not inside:
            raise UserError(str(entry), "the folder of this label is empty", "remove it, or put its images there")
        for path in inside:
            if not path.is_file():
                raise UserError(
                    str(path), "a label's folder holds only files", "move its files up, or name the folder above it"
                )
            found.append((entry.name, path))
    return found


def _visible(folder: Path) -> list[Path]:
    entries = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    for path in entries:
        if not tablefiles.encodes(path.name):
            raise UserError(str(folder), f"the file name {path.name!a} is not UTF-8", "rename the file")
    return entries


def look(content: bytes) -> tuple[bytes, str | None]:
    """A digest of the picture that encoded bytes show, and why they show none.

    The digest is of size and RGB pixels, which is what a model is given: two encodings of one picture are duplicates.
    The size that the header claims is judged before anything is decoded, by Pillow's own limit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
                image.verify()
            # Verifying uses the file up.
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
                pixels = image.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return b"", OVERSIZED
    except (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, struct.error, zlib.error):
        # All of these are how Pillow's decoders meet broken bytes.
        return b"", UNDECODABLE
    header = struct.pack("<QQ", *pixels.size)
    return hashlib.blake2b(header + pixels.tobytes(), digest_size=16).digest(), None
