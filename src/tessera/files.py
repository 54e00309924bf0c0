"""Writing files so that a reader sees the old one or the whole new one, and hashing them.

Everything under results/ is written through `replacing`: to a temporary neighbour first, flushed to disk, then renamed.
The neighbour has the writer's name in it, since on a cluster a job that was given up for lost may still be writing while
its successor does. A killed job leaves at most a neighbour that the next write of the same name removes.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tessera.errors import chain
from tessera.processes import is_alive, own_name

# The disk, or the user's share of it.
FULL = {errno.ENOSPC, errno.EDQUOT}
PARTIAL = ".partial"
# Seconds without a write after which a neighbour of another machine is taken for a dead one's.
GIVEN_UP = 3600


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{own_name()}{PARTIAL}")
    _remove_strays(path)
    try:
        with naming(path, partial):
            yield partial
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, written: Path | None = None) -> Iterator[None]:
    """Have a disk that is full while `path` is made raise an `OSError` with its name; `written` is what is written for it.

    Neither a write nor pyarrow gives it one. safetensors has an error of its own, which spells the number, and a library
    that closes its file on the way out may stumble over that and raise what it stumbled over.
    """
    try:
        yield
    except Exception as error:
        full = next(((each, number) for each in chain(error) for number in FULL if _is(each, number)), None)
        if full is not None:
            each, number = full
            names = getattr(each, "filename", None), getattr(each, "filename2", None)
            # What another file has no room for has its name already.
            if names == (None, None) or str(written or path) in names:
                raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _is(error: BaseException, number: int) -> bool:
    """Whether an error is the system's of this number."""
    return error.errno == number if isinstance(error, OSError) else f"(os error {number})" in str(error)


def _remove_strays(path: Path) -> None:
    """Remove what killed writers of `path` have left."""
    prefix = f".{path.name}."
    with os.scandir(path.parent) as entries:
        found = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(PARTIAL)]
    for name in found:
        stray = path.with_name(name)
        alive = is_alive(name[len(prefix) : -len(PARTIAL)])
        if alive is False or (alive is None and _is_old(stray)):
            stray.unlink(missing_ok=True)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > GIVEN_UP
    except FileNotFoundError:
        return False


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that gets hashed and stored: sorted keys, no NaN."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path | str, value: Any) -> None:
    with replacing(path) as partial:
        partial.write_text(canonical_json(value), encoding="utf-8")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_json(value: Any) -> str:
    return sha256_text(canonical_json(value))


def sha256_file(path: Path | str) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
