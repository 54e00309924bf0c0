"""What a user sees of a job that fails: one line for their mistakes, a traceback for ours, both in the log."""

import errno
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tessera.errors import UserError
from tessera.job import job


@pytest.fixture(autouse=True)
def own_handlers() -> Any:
    yield
    for name in ("tessera", "py.warnings"):
        logging.getLogger(name).handlers.clear()
    logging.captureWarnings(False)


def failing(tmp_path: Path, error: Exception) -> str:
    log = tmp_path / "logs/x.log"
    with pytest.raises(SystemExit) as stopped, job(SimpleNamespace(log=[str(log)], threads=1)):
        raise error
    assert stopped.value.code == 1
    return log.read_text()


def test_a_users_mistake_is_one_line(tmp_path: Path) -> None:
    log = failing(tmp_path, UserError("here", "it is\nwrong", "mend it"))
    assert log.endswith("ERROR here: it is wrong. Mend: mend it.\n")
    assert len(log.splitlines()) == 1


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    log = failing(tmp_path, OSError(errno.ENOSPC, "No space left on device", "results/x"))
    assert "results/x: No space left on device. Mend: see to the disk" in log
    assert "Traceback" not in log


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    log = failing(tmp_path, KeyError("x"))
    assert "Traceback" in log
    assert "is a bug in tessera" in log
