"""The folder a run works in: whether this user may write there, and who else is at work there.

Snakemake locks what a run makes, and says nothing of who holds the lock. Each run therefore leaves its name in the folder
while it lasts, so that whoever starts a second one learns of the first.

The Snakefile imports this while it is parsed, so nothing here may import more than the standard library.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tessera.errors import UserError
from tessera.processes import is_alive, machine_of, number_of, own_name

# What a run writes to, and where it leaves its name.
WRITTEN = Path(".snakemake"), Path("results"), Path("logs")
RUNS = Path(".snakemake/runs")


def require_writable() -> None:
    """A `UserError` about the first folder of a run that this user may not write to."""
    for folder in _folders():
        if not os.access(folder, os.W_OK | os.X_OK):
            owner = _owner(folder)
            mend = (
                f"work in a folder of your own, or have {owner} run chmod -R g+rwX {' '.join(map(str, WRITTEN))} in a "
                "folder of your group with its s bit set, and all of you work with umask 002"
            )
            raise UserError(str(folder), f"it belongs to {owner} and you may not write to it", mend)


def _folders() -> Iterator[Path]:
    """The folders of a run that are there, as deep as a run makes them before its first job."""
    for folder in WRITTEN:
        if folder.is_dir():
            yield folder
            if os.access(folder, os.R_OK | os.X_OK):
                yield from sorted(entry for entry in folder.iterdir() if entry.is_dir())
    if not all(folder.exists() for folder in WRITTEN):
        yield Path()


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def enter() -> None:
    """Leave this process's name in the folder, and remove those of runs that were killed."""
    RUNS.mkdir(parents=True, exist_ok=True)
    for path in RUNS.iterdir():
        if is_alive(path.name) is False:
            path.unlink(missing_ok=True)
    (RUNS / own_name()).touch()


def leave() -> None:
    """Take this process's name away."""
    (RUNS / own_name()).unlink(missing_ok=True)


def is_alone() -> bool:
    """Whether this process has left its name in the folder, and no other that is at work has."""
    names = {path.name for path in RUNS.iterdir()} if RUNS.is_dir() else set()
    return own_name() in names and all(is_alive(name) is False for name in names - {own_name()})


def locked() -> UserError:
    """What to say to someone whose run was refused because another has locked the folder."""
    runs = [path for path in RUNS.iterdir() if path.name != own_name()] if RUNS.is_dir() else []
    unlock = "run the same command with --unlock, and then once more without it"
    at_work = [path for path in runs if is_alive(path.name)]
    elsewhere = [path for path in runs if is_alive(path.name) is None]
    if at_work:
        wrong, mend = f"another run is at work in it, {_told(at_work[0])}", "wait for its end, or end it with Ctrl-C"
    elif elsewhere:
        wrong = f"it is locked by a run on another machine, {_told(elsewhere[0])}"
        mend = f"wait for its end or end it there; if nothing of it is left there, {unlock}"
    else:
        wrong, mend = "it is still locked by a run that was killed", unlock
    return UserError(str(Path.cwd()), wrong, mend)


def _told(path: Path) -> str:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    return f"process {number_of(path.name)} on {machine_of(path.name)}, started by {_owner(path)} at {began}"
