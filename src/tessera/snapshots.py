"""The canonical form that models and SAEs are kept in under results/, and the record of where they came from.

Beside each stands revision.json, written last: its source, the hash of every file, and the shapes that later stages
check. The record's `sha256` is the identity that captures carry.
"""

import os
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tessera.demo.folders import RECORD as DEMO_RECORD
from tessera.files import read_json, sha256_file, sha256_json, write_json

RECORD = "revision.json"


def given_folder(given: str | None) -> Path | None:
    """The folder a rule was given as source: itself, or the one that holds the record of what the workflow made."""
    if not given:
        return None
    path = Path(given)
    return path.parent if path.name in (DEMO_RECORD, RECORD) else path


def bring(origin: Path, folder: Path, patterns: Iterable[str]) -> None:
    """Link the files of `origin` that are allowed into `folder`, or copy them where the file systems differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        if stale.is_file():
            stale.unlink()
    for file in sorted(origin.iterdir()):
        if file.is_file() and file.name not in (RECORD, DEMO_RECORD) and any(fnmatch(file.name, p) for p in patterns):
            try:
                os.link(file.resolve(), folder / file.name)
            except OSError:
                shutil.copyfile(file, folder / file.name)


def write_record(folder: Path, source: dict[str, str], given: Path | None, shapes: dict[str, Any]) -> None:
    """Write the record of what `folder` holds; a source of the demo world brings its own measurements along."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != RECORD and not p.name.startswith("."))
    files = {name: sha256_file(folder / name) for name in names}
    record = {"source": source, "files": files, "sha256": sha256_json(files), **shapes}
    if given and (given / DEMO_RECORD).is_file():
        record["demo"] = read_json(given / DEMO_RECORD)
    write_json(folder / RECORD, record)
