"""The dataset table as every later stage sees it.

A dataset on disk is a Parquet file with one fixed schema, one row an example, in the order of its source; its content
is a column `text` or a column `image`, never both. Nearly every job reads one, so this module knows nothing of where
tables come from, and imports nothing heavier than pyarrow and numpy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_CONTENT = {"text": pa.string(), "image": pa.binary()}


def schema(modality: str) -> pa.Schema:
    """The one schema of a dataset table; `modality` is "text" or "image" and names the column with the content."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field(modality, _CONTENT[modality], nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("subset", pa.string(), nullable=False),
            pa.field("split", pa.string()),
            pa.field("group", pa.int64(), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Table:
    """A dataset in memory, one entry per example in every field. One of `texts` and `images` is None.

    `labels` and `subsets` are object arrays of str: numpy's own string type drops trailing NUL characters.
    Examples of one `groups` value must never be on both sides of a split.
    """

    ids: list[str]
    texts: list[str] | None
    images: list[bytes] | None
    labels: npt.NDArray[np.object_]
    subsets: npt.NDArray[np.object_]
    splits: list[str | None]
    groups: npt.NDArray[np.int64]

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
    )
