"""The canonical form that models and SAEs are kept in under results/, and the record of where they came from.

Beside each stands revision.json, written last: its source, the hash of every file, and the shapes that later stages
check. The record's `sha256` is the identity that captures carry.

Whoever reads a snapshot holds its files against the record first. Weights can be many gigabytes, and each pass of a model
reads them, so a file is hashed once: how large it was then, and when it was last written, is noted, and as long as that is so
it is the same file.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tessera.demo.folders import RECORD as DEMO_RECORD
from tessera.errors import UserError
from tessera.files import read_json, replacing, sha256_file, sha256_json, write_json
from tessera.job import DISK_TROUBLE

RECORD = "revision.json"
# What files were when they were last hashed.
NOTES = ".hashed.json"


def given_folder(given: str | None) -> Path | None:
    """The folder a rule was given as source: itself, or the one that holds the record of what the workflow made."""
    if not given:
        return None
    path = Path(given)
    return path.parent if path.name in (DEMO_RECORD, RECORD) else path


def allowed(origin: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of a given folder that may be brought from it, and no records; a link that leads elsewhere is a `UserError`."""
    names = [path for path in sorted(origin.iterdir()) if path.name not in (RECORD, DEMO_RECORD)]
    files = [path for path in names if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)]
    home = origin.resolve()
    # The cache of the Hub's client keeps a snapshot's files beside the snapshots.
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    for file in files:
        real = file.resolve()
        if not any(real.is_relative_to(inside) for inside in homes):
            raise UserError(str(file), f"this link leads out of its folder, to '{real}'", "put the file itself there")
    return files


@contextmanager
def opening(key: str, what: str, mend: str) -> Iterator[None]:
    """Turn whatever a library raises while it opens what a user gave us into a `UserError`, as long as it is about that.

    What it makes of a damaged or hostile file is any kind of error, often from the depths of a parser.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError | MemoryError) or (isinstance(error, OSError) and error.errno in DISK_TROUBLE):
            raise
        raise UserError(key, f"{what} cannot be opened ({type(error).__name__}: {error})", mend) from error


def emptied(folder: Path) -> Path:
    """The folder, without any files. They are removed and never written to: what is linked would change with them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        if stale.is_file():
            stale.unlink()
    return folder


def bring(origin: Path, folder: Path, patterns: Iterable[str]) -> None:
    """Link the files of `origin` that are allowed into `folder`, or copy them where the file systems differ."""
    emptied(folder)
    for file in allowed(origin, patterns):
        try:
            os.link(file.resolve(), folder / file.name)
        except OSError:
            with replacing(folder / file.name) as partial:
                shutil.copyfile(file, partial)


def require_whole(folder: Path, without: str = "") -> None:
    """A `UserError` about the first file of a snapshot that is missing, or is not the one that its record tells of.

    Files whose name has the pattern `without` are not looked at.
    """
    notes = folder / NOTES
    before = read_json(notes) if notes.is_file() else {}
    known = dict(before)
    for name, sha256 in read_json(folder / RECORD)["files"].items():
        path = folder / name
        if fnmatch(name, without):
            continue
        if not path.is_file():
            raise _not_whole(path, "it is missing")
        now = _note(path, sha256)
        if known.get(name) != now and sha256_file(path) != sha256:
            raise _not_whole(path, f"its content is not what {RECORD} says")
        known[name] = now
    # In someone else's folder it is hashed each time.
    if known != before and os.access(folder, os.W_OK):
        write_json(notes, known)


def _note(path: Path, sha256: str) -> list[str | int]:
    """What a file is by its hash, and by what the file system tells of it without reading it."""
    status = path.stat()
    return [sha256, status.st_size, status.st_mtime_ns]


def _not_whole(path: Path, wrong: str) -> UserError:
    return UserError(str(path), wrong, f"delete {path.with_name(RECORD)} and run again; the snapshot is brought anew")


def write_record(folder: Path, source: dict[str, str], given: Path | None, shapes: dict[str, Any]) -> None:
    """Write the record of what `folder` holds; a source of the demo world brings its own measurements along."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != RECORD and not p.name.startswith("."))
    files = {name: sha256_file(folder / name) for name in names}
    write_json(folder / NOTES, {name: _note(folder / name, sha256) for name, sha256 in files.items()})
    record = {"source": source, "files": files, "sha256": sha256_json(files), **shapes}
    if given and (given / DEMO_RECORD).is_file():
        record["demo"] = read_json(given / DEMO_RECORD)
    write_json(folder / RECORD, record)
