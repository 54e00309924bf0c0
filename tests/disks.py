"""Disks of a few pages, in memory, that only those see who run beside them; and what is said of a full one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")
FULL = "No space left on device. Mend: see to the disk, then run the same command again."
# Whoever may make neither a user namespace nor, as root, a namespace of mounts may mount no disk.
WAYS = ("unshare", "--user", "--map-root-user", "--mount"), ("unshare", "--mount")


def mounting(folder: Path, *options: str) -> tuple[str, ...]:
    """The command that mounts an empty disk at a folder."""
    return ("mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder))


def may_mount(way: tuple[str, ...], folder: Path) -> bool:
    return subprocess.run([*way, *mounting(folder, "size=64k")], capture_output=True, check=False).returncode == 0


def way_to_mount(folder: Path) -> tuple[str, ...]:
    """The start of a command by which this user may mount disks; without one, the test that asks is skipped."""
    way = next((way for way in WAYS if shutil.which(way[0]) and may_mount(way, folder)), None)
    if way is None:
        pytest.skip("mounting a small disk is permitted neither to this user nor in a user namespace")
    return way


@dataclass
class Beside:
    """A namespace of mounts, held by a process that does nothing else."""

    holder: int
    entering: tuple[str, ...]

    def within(self, folder: Path) -> tuple[str, ...]:
        """The start of a command that runs in it, in a folder."""
        return (*self.entering, "env", "-C", str(folder))

    def run(self, *command: str) -> None:
        subprocess.run([*self.entering, *command], check=True)

    def mount(self, folder: Path, *options: str) -> None:
        self.run(*mounting(folder, *options))

    def seen(self, path: Path) -> Path:
        """Where those outside find what those inside find at a path."""
        return Path(f"/proc/{self.holder}/root{path}")

    def fill(self, disk: Path, pages: int) -> Path:
        """Leave room for so many pages on a disk; returns the file that takes the rest."""
        filler = self.seen(disk) / ".filler"
        free = os.statvfs(self.seen(disk)).f_bavail
        filler.write_bytes(bytes((free - pages) * PAGE))
        return filler


@contextmanager
def beside(folder: Path) -> Iterator[Beside]:
    """A namespace of mounts, which ends with its disks; `folder` is one that a disk may be tried on."""
    way = way_to_mount(folder)
    holder = subprocess.Popen([*way, "sh", "-c", "echo ready; exec sleep infinity"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        spaces = ("--user", "--preserve-credentials") if "--user" in way else ()
        yield Beside(holder.pid, ("nsenter", "--target", str(holder.pid), *spaces, "--mount"))
    finally:
        holder.kill()
        holder.wait()
