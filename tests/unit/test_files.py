"""Writing so that a reader sees the old file or the whole new one."""

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


def test_what_a_killed_write_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".a.json.partial").write_text("half")
    write_json(tmp_path / "a.json", [1])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_the_hash_of_a_value_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", float("nan"))
