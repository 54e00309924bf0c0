"""The dataset table as every later stage sees it.

A dataset on disk is a Parquet file with one fixed schema, one row an example, in the order of its source; its content
is a column `text` or a column `image`, never both. Further columns that a config asks for are text, and behind the others. Nearly every job reads one, so this module knows nothing of where
tables come from, and imports nothing heavier than pyarrow and numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

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


def read(table_path: Path | str) -> Table:
    """The dataset table that `tessera.datasets.build` wrote."""
    # A `ParquetFile`, because `read_table` takes a folder named a=b on the way to the file for a column of the table.
    with pq.ParquetFile(table_path) as file:
        table = file.read()
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
