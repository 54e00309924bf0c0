"""The dataset table as every later stage sees it.

A dataset on disk is a Parquet file with one fixed schema, one row an example, in the order of its source; its content
is a column `text` or a column `image`, never both. Further columns that a config asks for are text, and behind the others.
Its record beside it has the sha256 of the examples, and whoever reads the table for a job holds it against that. Nearly
every job reads one, so this module knows nothing of where tables come from, and imports nothing heavier than pyarrow and
numpy.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.errors import UserError
from tessera.job import DISK_TROUBLE

_CONTENT = {"text": pa.string(), "image": pa.binary()}


# Formats of images that Pillow decodes by itself; others hand the file to a program, such as EPS to Ghostscript.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What the name of a further column begins with, so that no user's column is taken for one of ours.
FURTHER = "column."


def schema(modality: str, further: Sequence[str] = ()) -> pa.Schema:
    """The schema of a dataset table; `modality` is "text" or "image" and names the column with the content."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field(modality, _CONTENT[modality], nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("subset", pa.string(), nullable=False),
            pa.field("split", pa.string()),
            pa.field("group", pa.int64(), nullable=False),
            *(pa.field(f"{FURTHER}{name}", pa.string()) for name in further),
        ]
    )


@dataclass(frozen=True)
class Table:
    """A dataset in memory, one entry per example in every field. One of `texts` and `images` is None.

    `labels` and `subsets` are object arrays of str: numpy's own string type drops trailing NUL characters.
    Examples of one `groups` value must never be on both sides of a split. A dataset without labels has the label "" everywhere.
    `columns` are the further ones, by the name that the user knows.
    """

    ids: list[str]
    texts: list[str] | None
    images: list[bytes] | None
    labels: npt.NDArray[np.object_]
    subsets: npt.NDArray[np.object_]
    splits: list[str | None]
    groups: npt.NDArray[np.int64]
    columns: dict[str, list[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


def digest(batches: Iterable[pa.RecordBatch]) -> str:
    """The sha256 of examples.

    That is the hash of one line a row: the JSON list of id, text, label, subset, split, group and further columns, in UTF-8
    and without spaces. In the place of an image stands the sha256 of its encoded bytes.
    """
    found, encode = hashlib.sha256(), json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for batch in batches:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            values = [hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value for value in row]
            found.update(f"{encode(values)}\n".encode())
    return found.hexdigest()


def read(table_path: Path | str, sha256: str | None = None) -> Table:
    """The dataset table that `tessera.datasets.build` wrote; `sha256` is what its record says of the examples.

    A table that is missing or damaged, or holds other examples, is a `UserError` that names it.
    """
    # A `ParquetFile`, because `read_table` takes a folder named a=b on the way to the file for a column of the table.
    try:
        with pq.ParquetFile(table_path) as file:
            table = file.read()
        found = sha256 and digest(table.to_batches())
    except FileNotFoundError:
        raise _damaged(table_path, "it is missing") from None
    except (ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            raise
        raise _damaged(table_path, str(error)) from None
    if found != sha256 or not _is_named(table.column_names):
        raise _damaged(table_path, "its examples are not those of its record")
    has = set(table.column_names)
    return Table(
        ids=table["id"].to_pylist(),
        texts=table["text"].to_pylist() if "text" in has else None,
        images=table["image"].to_pylist() if "image" in has else None,
        labels=np.array(table["label"].to_pylist(), dtype=object),
        subsets=np.array(table["subset"].to_pylist(), dtype=object),
        splits=table["split"].to_pylist(),
        # Not pyarrow's own `to_numpy`, which imports pandas.
        groups=np.array(table["group"].to_pylist(), dtype=np.int64),
        columns={
            name.removeprefix(FURTHER): table[name].to_pylist()
            for name in table.column_names
            if name.startswith(FURTHER)
        },
    )


def _is_named(columns: Sequence[str]) -> bool:
    """Whether columns have the names of a table, which its record does not tell."""
    known = [schema(modality).names for modality in _CONTENT]
    return any(list(columns[: len(names)]) == names for names in known) and all(
        name.startswith(FURTHER) for name in columns[len(known[0]) :]
    )


def _damaged(table_path: Path | str, wrong: str) -> UserError:
    mend = "delete it and run again; it is brought in anew"
    return UserError(str(table_path), f"the table of a dataset is missing or damaged ({wrong})", mend)
