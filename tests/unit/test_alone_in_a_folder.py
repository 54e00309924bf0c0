"""Who is at work in a folder."""

import os
import subprocess
from pathlib import Path

import pytest

from tessera import folder
from tessera.processes import machine_of, own_name


def test_a_run_is_alone_from_when_it_enters_until_it_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not folder.is_alone()
    folder.enter()
    assert folder.is_alone()
    folder.leave()
    assert not folder.is_alone()


def test_a_run_is_not_alone_with_a_live_one_or_with_one_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder.enter()
    here = folder.RUNS / f"{machine_of(own_name())}.{os.getppid()}"
    here.touch()
    assert not folder.is_alone()
    here.rename(folder.RUNS / "login-2.17")
    assert not folder.is_alone()


def test_a_run_is_alone_with_the_name_of_one_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder.enter()
    with subprocess.Popen(["true"]) as process:
        process.wait()
    (folder.RUNS / f"{machine_of(own_name())}.{process.pid}").touch()
    assert folder.is_alone()
