"""The files of a probe job: cells and predictions of one input, and the record of a head's poolings.

One job serves all poolings of a head, because a head's shards are large and are read once for all of them. Each pooling
still has its files and the stamp of everything they depend on, so a job that is asked for one more pooling, or was
killed between two, computes what is missing and leaves the rest as it is.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tessera.errors import UserError
from tessera.files import read_json, replacing, sha256_json, write_json

logger = logging.getLogger(__name__)

STAMP = b"stamp"

RECORD = "probes.json"


def predictions_path(path: Path | str) -> Path:
    """Where the predictions lie that belong to a file of cells."""
    return Path(path).with_suffix(".predictions.parquet")


def write(cells: pa.Table, predictions: pa.Table, path: Path | str, stamp: str = "") -> None:
    """Write both files of a probe; the cells last, as the file by which the probe is known to be done."""
    stamped = cells.replace_schema_metadata({**(cells.schema.metadata or {}), STAMP: stamp})
    for table, target in ((predictions, predictions_path(path)), (stamped, path)):
        with replacing(target) as partial_path:
            pq.write_table(table, partial_path, compression="zstd")


def is_done(path: Path, stamp: str) -> bool:
    """Whether both files of a probe are there and come from the same everything."""
    if not (path.is_file() and predictions_path(path).is_file()):
        return False
    return (pq.read_schema(path).metadata or {}).get(STAMP) == stamp.encode()


def run_poolings(
    folder: Path,
    poolings: Sequence[str],
    probe: Callable[[str], tuple[pa.Table, pa.Table]],
    depends_on: Mapping[str, Any],
) -> None:
    """Cells and predictions of each pooling in `folder`, and the record of them.

    `depends_on` is everything that the results of `probe(pooling)` come from; files that came from the same are kept.
    """
    for pooling in poolings:
        path, stamp = folder / f"{pooling}.parquet", sha256_json({**depends_on, "pooling": pooling})
        if is_done(path, stamp):
            logger.info("%s: kept", pooling)
            continue
        start = time.perf_counter()
        cells, predictions = probe(pooling)
        write(cells, predictions, path, stamp)
        logger.info("%s: %d cells in %.1f s", pooling, cells.num_rows, time.perf_counter() - start)
    write_json(folder / RECORD, {"poolings": list(poolings)})


def of_heads(records: Sequence[str]) -> list[Path]:
    """The files of cells that the records of heads tell of."""
    files = [
        Path(record).with_name(f"{pooling}.parquet") for record in records for pooling in read_json(record)["poolings"]
    ]
    for file in files:
        if not file.is_file() or not predictions_path(file).is_file():
            raise UserError(str(file), "it or its predictions are gone", f"delete {file.parent / RECORD} and run again")
    return files
