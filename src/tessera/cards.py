"""Which card a local job computes on.

Jobs that run side by side on a machine with several cards each lock one of their own: a file per physical card, in the
folder for temporary files, which all users share. The kernel unlocks it when the job ends, however it ends. Where SLURM
has given the job its cards, that choice stands and nothing is locked.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tessera.errors import UserError

logger = logging.getLogger("tessera")

# Where NVIDIA's driver keeps a folder for each card of the machine.
DRIVER = Path("/proc/driver/nvidia/gpus")
# Seconds between two looks for a card that has become free.
POLL = 1.0


def count(wanted: str) -> int:
    """How many jobs that ask for `wanted` can have a card each, or 0 where cards do not limit them.

    Snakemake asks whenever it starts, so this goes by the driver's folder: torch takes seconds to import.
    """
    present = len(list(DRIVER.glob("*"))) if wanted in ("auto", "cuda") else 0
    names = _listed()
    return len(names) if present and names is not None else present


@contextmanager
def take(wanted: str) -> Iterator[str]:
    """The torch device for a job that asks for `wanted`. A card is this job's alone until the context ends."""
    device = _kind(wanted)
    if device != "cuda" or "SLURM_JOB_ID" in os.environ:
        yield device
        return
    names = _candidates()
    locks = [FileLock(_lock_path(name), mode=0o666) for name in names]
    position = _lock_first_free(names, locks)
    try:
        yield f"cuda:{position}"
    finally:
        locks[position].release()


def _kind(wanted: str) -> str:
    """What `auto` comes to on this machine. Any other wish is granted, cuda only where there is a card."""
    # At the top of the file, it would make each start of Snakemake wait for torch.
    import torch  # noqa: PLC0415

    has_card = _listed() != [] and torch.cuda.is_available()
    if wanted == "cuda" and not has_card:
        mend = "set it to auto or cpu, or see to the driver and CUDA_VISIBLE_DEVICES"
        raise UserError("capture.device", "it is cuda, but torch finds no card here", mend)
    if wanted != "auto":
        return wanted
    if has_card:
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _listed() -> list[str] | None:
    """The cards that CUDA_VISIBLE_DEVICES names; None where it is not set. CUDA, too, stops at a name that is none."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    return list(takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in listed.split(","))))


def _candidates() -> list[str]:
    """The name of each card that torch sees, in torch's order."""
    import torch  # noqa: PLC0415

    number = torch.cuda.device_count()
    names = _listed()
    return [str(index) for index in range(number)] if names is None else names[:number]


def _lock_path(name: str) -> Path:
    # The name of a part of a card may contain slashes.
    return Path(tempfile.gettempdir()) / f"tessera-card-{re.sub(r'[^0-9A-Za-z.-]', '_', name)}.lock"


def _lock_first_free(names: Sequence[str], locks: Sequence[BaseFileLock]) -> int:
    """Lock the first card that is free, if need be after a wait, and give its position."""
    waiting = False
    while True:
        for position, lock in enumerate(locks):
            if _lock(lock):
                return position
        if not waiting:
            logger.info("waiting for a card: %s taken by other jobs", ", ".join(names))
        waiting = True
        time.sleep(POLL)


def _lock(lock: BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except PermissionError:
        raise UserError(lock.lock_file, "you may not write to it", "have its owner run chmod 666 on it") from None
    return True
