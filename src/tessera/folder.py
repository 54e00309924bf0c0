"""The folder a run works in: whether this user may write there, and who else is at work there.

Snakemake locks what a run makes, and says nothing of who holds the lock. Each run therefore leaves its name in the folder
while it lasts, so that whoever starts a second one learns of the first.

The Snakefile imports this while it is parsed, so nothing here may import more than the standard library.
"""

import errno
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
    """A `UserError` about the first folder of a run that this user may not write to, or whose disk is full."""
    for folder in _folders():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(str(folder), *_kept_from(folder))
        if _is_full(os.statvfs(folder)):
            raise UserError(str(folder), os.strerror(errno.ENOSPC), "see to the disk, then run the same command again")


def _is_full(disk: os.statvfs_result) -> bool:
    """Whether a disk has not a block or not a file left for this user; one that does not count them says it has none at all."""
    root = os.geteuid() == 0
    blocks, files = (disk.f_bfree, disk.f_ffree) if root else (disk.f_bavail, disk.f_favail)
    return (disk.f_blocks > 0 and blocks == 0) or (disk.f_files > 0 and files == 0)


def _kept_from(folder: Path) -> tuple[str, str]:
    """Why this user may not write to a folder, and the mend."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return "its disk is mounted read-only", "mount it for writing, or work in a folder on another disk"
    if folder.stat().st_uid == os.geteuid():
        return "it is yours and you may not write to it", f"run chmod -R u+rwX {folder}"
    owner = _owner(folder)
    mend = (
        f"work in a folder of your own, or have {owner} run chmod -R g+rwX {' '.join(map(str, WRITTEN))} in a "
        "folder of your group with its s bit set, and all of you work with umask 002"
    )
    return f"it belongs to {owner} and you may not write to it", mend


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
