"""Folders that a killed run leaves visibly unfinished.

A model folder holds several files, and the libraries that write them do so in place. They write into a scratch folder
beside it; from there each file is flushed and moved, and the record `demo.json` comes last: its presence means complete.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tessera.files import write_json

RECORD = "demo.json"


@contextmanager
def filling(folder: Path | str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a scratch folder and an empty record; on success the folder holds the scratch files and then the record.

    A record from an earlier run goes first, so that the old one never stands beside new files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    scratch = folder.with_name(f".{folder.name}.partial")
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir()
    record: dict[str, Any] = {}
    try:
        yield scratch, record
        for path in sorted(scratch.iterdir()):
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
            path.replace(folder / path.name)
        write_json(folder / RECORD, record)
    finally:
        shutil.rmtree(scratch)
