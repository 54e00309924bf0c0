"""The tables of all transfers of a run, one below the other."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tessera import tables
from tessera.transfer.cells import CELLS
from tessera.transfer.dictionaries import DICTIONARIES, MATCHES

# Table -> the file of each transfer's folder that it is made of, and its columns.
PARTS = {
    "transfers": ("cells.parquet", CELLS),
    "dictionaries": ("dictionaries.parquet", DICTIONARIES),
    "matches": ("matches.parquet", MATCHES),
}


def collect(folders: Sequence[Path], into: Path) -> None:
    """Write every table of transfers, as Parquet for programs and CSV for people; one without rows has its columns."""
    for name, (file, schema) in PARTS.items():
        parts = [pq.ParquetFile(path).read() for folder in folders if (path := folder / file).is_file()]
        tables.write(pa.concat_tables([schema.empty_table(), *parts]), into / f"{name}.parquet")
