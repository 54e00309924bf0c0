"""Writing so that a reader sees the old file or the whole new one."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tessera.files import read_json, replacing, sha256_json, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail_halfway() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def ended_process() -> str:
    """The name of a process of this machine that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return f"{platform.node()}.{process.pid}"


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".a.json.{ended_process()}.partial").write_text("half")
    other = tmp_path / ".a.json.another-machine.1.partial"
    other.write_text("half")
    os.utime(other, (0, 0))
    write_json(tmp_path / "a.json", [1])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_two_that_write_the_same_file_do_not_touch_each_others_parts(tmp_path: Path) -> None:
    living = [f".a.json.{platform.node()}.{os.getppid()}.partial", ".a.json.another-machine.1.partial"]
    others = [".a.json.partial", ".b.json.another-machine.1.partial", f".a.json.{platform.node()}.x.partial"]
    for name in (*living, *others):
        (tmp_path / name).write_text("half")
    with replacing(tmp_path / "a.json") as partial:
        partial.write_text("whole")
        with (tmp_path / living[0]).open("a") as other:
            other.write(" and half")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *living, *others}
    assert (tmp_path / "a.json").read_text() == "whole"


def test_the_hash_of_a_value_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", float("nan"))


def stumble(how: str, partial: Path) -> None:
    """Fail as libraries do when the disk is full."""
    full = OSError(errno.ENOSPC, "No space left on device")
    if how == "named":
        raise OSError(errno.ENOSPC, "No space left on device", "what is copied", None, str(partial))
    if how == "wrapped":
        try:
            raise full
        finally:
            raise AttributeError("the file has no end")
    if how == "spelled":
        raise ValueError("I/O error: No space left on device (os error 28)")
    raise full


@pytest.mark.parametrize("how", ["bare", "named", "wrapped", "spelled"])
def test_the_error_of_a_full_disk_has_the_name_of_the_file_whatever_a_library_makes_of_it(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(OSError, match="No space left on device") as told, replacing(path) as partial:
        stumble(how, partial)
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_a_full_disk_keeps_the_name_that_it_has(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.json", tmp_path / "outer.json"
    full = pytest.raises(OSError, match="No space left on device")
    with full as told, replacing(outer), replacing(inner) as partial:
        stumble("bare", partial)
    assert told.value.filename == str(inner)
