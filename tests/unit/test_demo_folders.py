from pathlib import Path

import pytest

from tessera.demo.folders import RECORD, filling
from tessera.files import read_json


def test_the_record_is_written_with_the_files(tmp_path: Path) -> None:
    with filling(tmp_path / "model") as (scratch, record):
        (scratch / "weights").write_text("w")
        record["steps"] = 3
        assert list((tmp_path / "model").iterdir()) == []
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"weights", RECORD}
    assert read_json(tmp_path / "model" / RECORD) == {"steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_run_leaves_no_record_even_where_there_was_one(tmp_path: Path) -> None:
    with filling(tmp_path / "model") as (scratch, record):
        (scratch / "weights").write_text("old")
    with pytest.raises(RuntimeError), filling(tmp_path / "model") as (scratch, record):  # noqa: PT012
        (scratch / "weights").write_text("new")
        record["steps"] = 1
        raise RuntimeError
    assert not (tmp_path / "model" / RECORD).exists()
    assert (tmp_path / "model/weights").read_text() == "old"


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial/half").write_text("")
    with filling(tmp_path / "model") as (scratch, _):
        (scratch / "weights").write_text("w")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"weights", RECORD}
