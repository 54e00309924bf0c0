"""What a machine, a container or a job of SLURM lets jobs take."""

import os
from pathlib import Path

import pytest

from tessera import machine


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 GB with no limits."""
    for name in ("SLURM_MEM_PER_NODE", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "memory.max",))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 8_000_000_000 // 4096}.__getitem__)


def test_most_of_the_memory_of_a_machine_is_for_jobs() -> None:
    assert 7000 < machine.memory_mb() < 8000
    assert machine.granted_cores() is None


@pytest.mark.parametrize(("limit", "least", "most"), [("2000000000", 1700, 2000), ("max", 7000, 8000)])
def test_a_container_has_what_it_is_limited_to(limit: str, least: int, most: int) -> None:
    machine.LIMITS[0].write_text(f"{limit}\n")
    assert least < machine.memory_mb() < most


def test_a_job_of_slurm_has_what_slurm_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "12345")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert machine.memory_mb() == 12345
    assert machine.granted_cores() == 4


def test_a_job_of_all_the_nodes_memory_has_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert 7000 < machine.memory_mb() < 8000


@pytest.mark.parametrize(("width", "hidden", "least"), [(16384, 2304, 1146), (1 << 20, 3584, 60_000)])
def test_storing_an_sae_is_given_what_sae_lens_holds_of_it(width: int, hidden: int, least: int) -> None:
    """The first was measured; the other is two copies of the encoder and decoder of Gemma Scope's widest."""
    copies = 2 * 2 * 4 * hidden * width / 1e6
    assert max(copies, least) < machine.storing_mb(width) < 3 * copies + 1500
