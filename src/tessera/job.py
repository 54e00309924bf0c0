"""What every workflow script needs around its one library call: a log, a progress bar, and errors a user can read."""

import errno
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from tessera.errors import UserError

Item = TypeVar("Item")

logger = logging.getLogger("tessera")

# What the user's disk can do to a job; a traceback would add nothing to these.
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}


class Log(logging.FileHandler):
    """The log of a job. A line that its disk has no room for goes to the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if isinstance(sys.exception(), OSError):
            sys.stderr.write(self.format(record) + "\n")
        else:
            super().handleError(record)


@contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Run a script's body with its log on file and terminal; turn a `UserError` into one line and a failing exit status.

    The line goes to the log, which the workflow shows when a job fails.
    """
    # Snakemake tells all libraries how many cores a job holds but the tokenizers', who would take every core there is.
    os.environ["RAYON_NUM_THREADS"] = str(snakemake.threads)
    try:
        log_path = Path(str(snakemake.log[0]))
        log_path.parent.mkdir(parents=True, exist_ok=True)
        handler = Log(log_path, mode="w", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(handler)
        yield logger
    except UserError as error:
        logger.error("%s", error)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            where, reason = str(error.filename or "results/"), os.strerror(error.errno)
            see_to = "have its owner let you write to it" if error.errno == errno.EACCES else "see to the disk"
            logger.error("%s", UserError(where, reason, f"{see_to}, then run the same command again"))
        else:
            logger.exception("%s is a bug in tessera, not in your input; please report it", type(error).__name__)
        sys.exit(1)


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "it") -> tqdm:
    """A progress bar with rate and estimate, redrawn often on a terminal and every ten seconds where there is none."""
    quiet = not sys.stderr.isatty()
    return tqdm(items, desc=what, total=total, unit=unit, unit_scale=True, mininterval=10 if quiet else 0.2)
