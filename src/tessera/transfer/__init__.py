"""Transfer: what a classifier learned in one place is worth in another.

One job computes a whole matrix. `tessera.transfer.kinds` says what its sources and targets are, `arrangement` who is trained on
what, `fits` trains and answers one input at a time, and `cells` makes scores of the answers. Answers are kept by input, with a
stamp of everything they come from, so that a job which is asked for one more input, or was killed, computes only what is
missing.
"""

import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy import sparse

from tessera import arms, examples, pooling, protocols, shards
from tessera.arms import Arm
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json, replacing, sha256_file, sha256_json
from tessera.snapshots import require_whole
from tessera.solvers import Matrix
from tessera.transfer import cells, dictionaries, fits, kinds
from tessera.transfer.cells import CELLS
from tessera.transfer.kinds import Part, Plan

logger = logging.getLogger("tessera")

Array = npt.NDArray[Any]

STAMP = b"stamp"
# Settings that list inputs: one more of them changes nothing for the others.
OF_INPUTS = (
    "inputs",
    "saes",
    "layers",
    "sae_poolings",
    "hidden_poolings",
    "thresholds",
    "text",
    "pairs",
    "of",
    "matched",
    "saes_of",
)
# The side to which an image is brought before its pixels are taken as features.
PIXELS = 16

# A classifier input: what it is called, and what makes its features for the rows of a matrix.
Called = dict[str, Any]
Make = Callable[[], Matrix | Arm]


def run(name: str, settings: Mapping[str, Any], *, results: Path, folder: Path, code: str = "") -> None:
    """Compute the transfer `name` and write its tables into `folder`.

    `settings` is the plain config entry with what a study adds to it: `inputs`, and what the kind needs.
    """
    reading = _Reading(settings, results)
    rows: list[dict[str, Any]] = []
    for plan in reading.plans():
        rows += [_named(plan, name, settings["kind"], row) for row in _matrix(plan, reading, folder, code)]
    if settings["kind"] == "dictionary":
        found = list(_dictionary_rows(settings, rows))
        _write([{"transfer": name, **row} for row in found], dictionaries.DICTIONARIES, folder / "dictionaries.parquet")
        for sae in {sae for pair in settings["matched"] for sae in pair}:
            require_whole(results / "saes" / sae)
        matched = dictionaries.matches(settings["matched"], settings["saes_of"], results / "saes")
        _write([{"transfer": name, **row} for row in matched], dictionaries.MATCHES, folder / "matches.parquet")
    # Last, as the file by which the transfer is known to be done.
    _write(rows, CELLS, folder / "cells.parquet")


def _named(plan: Plan, name: str, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"transfer": name, "kind": kind, **plan.named(row)}


def _write(rows: Sequence[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


# --- one matrix ----------------------------------------------------------------------------------------------------


def _matrix(plan: Plan, reading: "_Reading", folder: Path, code: str) -> Iterator[dict[str, Any]]:
    """The cells of a matrix, input after input from its file of answers or anew."""
    protocol = protocols.strict(seeds=2, test_size=0.5, **reading.settings["strict"])
    arrangement = plan.arrangement
    called, answered = [], []
    for entry, covered, make in reading.inputs(plan):
        path = folder / "answers" / plan.folder / f"{_file_name(entry)}.parquet"
        sources = [source for source in arrangement.sources if not np.any(source.rows & ~covered)]
        chosen = {
            "thresholds": entry.pop("thresholds"),
            "selections": plan.selections if entry["arm"] == "sae" else ("none",),
            "penalties": reading.settings["l1_penalties"],
        }
        stamp = sha256_json([code, entry, chosen, reading.depends_on(entry), reading.shared, plan.folder])
        if not _is_done(path, stamp):
            start = time.perf_counter()
            table = fits.answers(make(), arrangement, sources, protocol, **chosen)
            with replacing(path) as partial:
                pq.write_table(table.replace_schema_metadata({STAMP: stamp}), partial, compression="zstd")
            logger.info("%s: %d fits in %.1f s", path.stem, len(table), time.perf_counter() - start)
        called.append(entry)
        answered.append((entry, list(fits.by_cell(pq.ParquetFile(path).read()))))
    lines = cells.lines(answered, arrangement)
    if reading.settings["kind"] == "dictionary":
        lines = {line: found for line, found in lines.items() if line.head is not None}
    yield from cells.scored(lines, arrangement, plan.ceiling)
    for source in arrangement.sources:
        if problem := arrangement.problem(source):
            yield from cells.untrained(source, called, problem, arrangement)


def _file_name(entry: Mapping[str, Any]) -> str:
    parts = (entry["model"], entry["head"], entry["arm"], entry["pooling"])
    return ".".join(part for part in parts if part)


def _is_done(path: Path, stamp: str) -> bool:
    return path.is_file() and (pq.read_schema(path).metadata or {}).get(STAMP) == stamp.encode()


# --- what is read --------------------------------------------------------------------------------------------------


class _Reading:
    """The datasets, behaviours and captures of a transfer."""

    def __init__(self, settings: Mapping[str, Any], results: Path) -> None:
        self.settings, self.results = settings, results
        self.tables: dict[str, Table] = {
            name: examples.read(path, read_json(path.with_suffix(".json"))["sha256"])
            for name in settings["tables"]
            for path in [results / "datasets" / f"{name}.parquet"]
        }

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all inputs depend on."""
        return {key: value for key, value in self.settings.items() if key not in OF_INPUTS}

    def plans(self) -> list[Plan]:
        settings, tables = self.settings, self.tables
        match settings["kind"]:
            case "language":
                return kinds.language(settings, tables)
            case "task":
                return kinds.task(settings, tables)
            case "model":
                return kinds.model(settings, tables, self._behaviours())
            case "modality":
                return kinds.modality(settings, tables, pixels(tables[settings["images"]].images or []))
            case _:
                return kinds.dictionary(settings, tables)

    def _behaviours(self) -> list[kinds.Asked]:
        asked = [
            kinds.asked(name, self.results / "behaviours" / f"{name}.parquet", of["dataset"], of["model"])
            for name, of in self.settings["asked"].items()
        ]
        given = self.settings["published"].items()
        return asked + [kinds.published(dataset, model, self.tables[dataset]) for dataset, model in given]

    def inputs(self, plan: Plan) -> Iterator[tuple[Called, Array, Make]]:
        """Every input of a matrix: what it is called, which rows it has features of, and what makes them."""
        n = len(plan.arrangement.codes)
        everything = np.ones(n, bool)
        datasets = [part.dataset for part in plan.parts]
        for given in self.settings["inputs"]:
            covered = np.concatenate(
                [np.full(len(part.rows), part.dataset in given["manifests"]) for part in plan.parts]
            )
            if not covered.any():
                continue
            paths = {
                dataset: Path(given["manifests"][dataset]) for dataset in datasets if dataset in given["manifests"]
            }
            for name in given["poolings"]:
                entry = {key: given[key] for key in ("arm", "model", "head", "layer", "width", "thresholds")}
                yield entry | {"pooling": name}, covered, _maker(given, name, plan.parts, paths)
        for name in self.settings["text"] if plan.texts else []:
            entry = dict.fromkeys(("model", "head", "layer", "width")) | {"arm": "tfidf", "pooling": name}
            yield entry | {"thresholds": [None]}, everything, _text_maker(name, plan.texts)
        for extra in plan.extras:
            entry = dict.fromkeys(("head", "layer", "width", "pooling")) | {"arm": extra.arm, "model": extra.model}
            # Pixels are of images alone: what has no features is nobody's training part.
            covered = plan.arrangement.sources[0].rows if extra.arm == "pixels" else everything
            yield entry | {"thresholds": [None]}, covered, _given_maker(extra.X)

    def depends_on(self, entry: Mapping[str, Any]) -> list[str]:
        """Digests of what the answers of an input come from."""
        files = [self.results / "datasets" / f"{name}.json" for name in self.settings["tables"]]
        files += [self.results / "behaviours" / f"{name}.json" for name in self.settings.get("asked", {})]
        for given in self.settings["inputs"]:
            if (given["model"], given["head"]) == (entry["model"], entry["head"]):
                files += [Path(path) for path in given["manifests"].values()]
        return [sha256_file(path) for path in files]


def _maker(given: Mapping[str, Any], name: str, parts: Sequence[Part], paths: Mapping[str, Path]) -> Make:
    return lambda: stacked(
        [_pooled(given, name, part, paths.get(part.dataset)) for part in parts], [len(part.rows) for part in parts]
    )


def _text_maker(name: str, texts: Sequence[str]) -> Make:
    return lambda: arms.TEXT_ARMS[name](list(texts))


def _given_maker(X: Array) -> Make:
    return lambda: X


def _pooled(given: Mapping[str, Any], name: str, part: Part, manifest: Path | None) -> Matrix | None:
    """The pooled features of some rows of a dataset; None if the dataset was not read there."""
    if manifest is None:
        return None
    if given["arm"] == "sae":
        return cast(Matrix, pooling.pool(shards.read_sae(manifest.parent, given["head"]), name)[part.rows])
    return shards.read_hidden(manifest.parent, given["head"], name)[part.rows]


def stacked(blocks: Sequence[Matrix | None], sizes: Sequence[int]) -> Matrix:
    """Blocks of rows one below the other; where one is None, its rows are zeros, which no source may train on."""
    there = next(block for block in blocks if block is not None)
    width = there.shape[1]
    if sparse.issparse(there):
        filled = [
            sparse.csr_matrix((size, width), dtype=np.float32) if block is None else block
            for block, size in zip(blocks, sizes, strict=True)
        ]
        return cast(Matrix, sparse.vstack(filled, format="csr"))
    return np.concatenate(
        [
            np.zeros((size, width), np.float32) if block is None else block
            for block, size in zip(blocks, sizes, strict=True)
        ]
    )


def pixels(images: Sequence[bytes]) -> Array:
    """Images as rows of grey values from 0 to 1, all brought to one small size."""
    found = np.zeros((len(images), PIXELS * PIXELS), np.float32)
    for row, encoded in enumerate(images):
        with Image.open(io.BytesIO(encoded), formats=examples.IMAGE_FORMATS) as image:
            grey = image.convert("L").resize((PIXELS, PIXELS), Image.Resampling.BOX)
            found[row] = np.asarray(grey, np.float32).ravel() / 255
    return found


# --- dictionaries --------------------------------------------------------------------------------------------------


def _dictionary_rows(settings: Mapping[str, Any], cells_: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each SAE, on its own model and on the sibling: health, agreement with its reading at home, and its probe's score."""
    inputs = {given["head"]: given for given in settings["inputs"]}
    dataset = settings["dataset"]
    scores = {cell["head"]: cell for cell in cells_}
    home_of = {borrowed: own for own, borrowed in settings["pairs"]}
    for head, given in inputs.items():
        home = inputs[home_of.get(head, head)]
        manifest = Path(given["manifests"][dataset])
        row = {"dataset": dataset, "sae": home["head"], "home": home["model"], "reader": given["model"]}
        row |= {"layer": given["layer"], "width": given["width"], "status": "ok"}
        row |= dictionaries.health(manifest, head)
        cell = scores.get(head, {})
        row |= {name: cell.get(name) for name in ("macro_f1", "low", "high", "closed", "closed_low", "closed_high")}
        try:
            at_home = (Path(home["manifests"][dataset]), home["head"])
            found, chance = dictionaries.agreement(at_home, (manifest, head))
            row |= {"agreement": found, "agreement_chance": chance}
        except UserError as error:
            row |= {"status": "failed", "reason": error.wrong}
        if cell.get("status") == "failed":
            row |= {"status": "failed", "reason": cell["reason"]}
        yield row
