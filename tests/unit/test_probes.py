"""The files of a probe job: what is done stays, what is missing or of other origin is made."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tessera import probes
from tessera.errors import UserError
from tessera.files import read_json
from tessera.protocols import CELLS, PREDICTIONS


class Probed:
    """Counts what is computed."""

    def __init__(self) -> None:
        self.poolings: list[str] = []

    def __call__(self, pooling: str) -> tuple[pa.Table, pa.Table]:
        self.poolings.append(pooling)
        return CELLS.empty_table(), PREDICTIONS.empty_table()


def test_one_more_pooling_computes_itself_alone(tmp_path: Path) -> None:
    first, more = Probed(), Probed()
    probes.run_poolings(tmp_path, ["sum", "last"], first, {"code": "a"})
    probes.run_poolings(tmp_path, ["sum", "max", "last"], more, {"code": "a"})
    assert (first.poolings, more.poolings) == (["sum", "last"], ["max"])
    assert read_json(tmp_path / "probes.json") == {"poolings": ["sum", "max", "last"]}


def test_other_origins_compute_everything_again(tmp_path: Path) -> None:
    probes.run_poolings(tmp_path, ["sum"], Probed(), {"code": "a"})
    again = Probed()
    probes.run_poolings(tmp_path, ["sum"], again, {"code": "b"})
    assert again.poolings == ["sum"]


@pytest.mark.parametrize("lost", ["sum.parquet", "sum.predictions.parquet"])
def test_half_a_probe_is_none(tmp_path: Path, lost: str) -> None:
    probes.run_poolings(tmp_path, ["sum"], Probed(), {})
    (tmp_path / lost).unlink()
    again = Probed()
    probes.run_poolings(tmp_path, ["sum"], again, {})
    assert again.poolings == ["sum"]


def test_a_pooling_that_breaks_keeps_those_before_it(tmp_path: Path) -> None:
    def breaks(pooling: str) -> tuple[pa.Table, pa.Table]:
        if pooling == "last":
            raise UserError("here", "no", "none")
        return CELLS.empty_table(), PREDICTIONS.empty_table()

    with pytest.raises(UserError):
        probes.run_poolings(tmp_path, ["sum", "last"], breaks, {})
    assert not (tmp_path / "probes.json").exists()
    again = Probed()
    probes.run_poolings(tmp_path, ["sum", "last"], again, {})
    assert again.poolings == ["last"]


def test_the_stamp_is_no_column(tmp_path: Path) -> None:
    probes.run_poolings(tmp_path, ["sum"], Probed(), {})
    assert pq.ParquetFile(tmp_path / "sum.parquet").read().schema.equals(CELLS, check_metadata=False)


def test_files_that_are_gone_are_named(tmp_path: Path) -> None:
    probes.run_poolings(tmp_path, ["sum", "last"], Probed(), {})
    record = str(tmp_path / "probes.json")
    assert probes.of_heads([record]) == [tmp_path / "sum.parquet", tmp_path / "last.parquet"]
    (tmp_path / "last.predictions.parquet").unlink()
    with pytest.raises(UserError, match=r"probes\.json and run again"):
        probes.of_heads([record])
