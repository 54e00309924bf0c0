"""What is said of the jobs that a run has left with SLURM, what is done about them, and why SLURM ended a job."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from tessera import slurm
from tessera.errors import UserError

# Jobs of this folder, of another one, and of someone who submits here without Snakemake.
ANSWER = """\
echo '12|RUNNING|{here}|rule_capture_wildcards_a_b'
echo '15_[2-3]|COMPLETING|{here}|rule_probes-a-b_probe'
echo '13|RUNNING|{here}/more|rule_capture_wildcards_a_b'
echo '14|RUNNING|{here}|(null)'
"""


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `squeue` that answers as one would."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    (programs / "squeue").write_text("#!/bin/sh\n" + ANSWER.format(here=tmp_path))
    (programs / "squeue").chmod(0o755)
    return programs / "squeue"


def test_jobs_of_this_folder_are_named_with_the_command_that_cancels_them(tmp_path: Path, squeue: Path) -> None:
    with pytest.raises(UserError) as raised:
        slurm.require_none_left(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: SLURM still has 2 jobs of an earlier run in this folder: 12 15_[2-3]. Mend: wait for their end, or "
        "cancel them with scancel 12 15_[2-3]; then run the same command again."
    )


def test_jobs_of_other_folders_are_no_hindrance(tmp_path: Path, squeue: Path) -> None:
    slurm.require_none_left(tmp_path / "elsewhere")


def test_a_controller_that_does_not_answer_is_one_line(tmp_path: Path, squeue: Path) -> None:
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(UserError, match=r"^squeue: slurm_load_jobs error: Unable to contact slurm controller\. Mend: "):
        slurm.require_none_left(tmp_path)


def test_without_slurm_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm.require_none_left(tmp_path)


def test_what_the_controller_said_at_first_holds_while_it_is_away() -> None:
    answers: list[int | None] = [7200, None]
    executor = ModuleType("executor")
    executor.get_min_job_age = lambda: answers.pop(0)  # type: ignore[attr-defined]
    slurm.keep_memory(executor)
    assert [executor.get_min_job_age() for _ in range(2)] == [7200, 7200]
    assert answers == [None]


def test_a_controller_that_says_nothing_at_first_is_asked_again() -> None:
    answers: list[int | None] = [None, 300]
    executor = ModuleType("executor")
    executor.get_min_job_age = lambda: answers.pop(0)  # type: ignore[attr-defined]
    slurm.keep_memory(executor)
    assert executor.get_min_job_age() == 300


def test_at_the_end_of_a_run_its_jobs_are_cancelled_and_no_others(tmp_path: Path, squeue: Path) -> None:
    squeue.with_name("scancel").write_text(f"#!/bin/sh\necho $* >> {tmp_path}/cancelled\n")
    squeue.with_name("scancel").chmod(0o755)
    assert slurm.cancel_left(tmp_path) == ["12"]
    assert (tmp_path / "cancelled").read_text() == "12\n"
    assert slurm.cancel_left(tmp_path / "elsewhere") == []
    assert (tmp_path / "cancelled").read_text() == "12\n"


TOO_MUCH = {
    "slurmstepd-n1: error: StepId=12.0 exceeded memory limit (2 > 1), being killed": "took more memory than it had asked for",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0.": "took more memory than it had asked for",
    "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***": "took more time than it had asked for",
}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of a job, which was tried once before."""
    monkeypatch.chdir(tmp_path)
    path = Path("logs/slurm/rule_check/reviews/12.log")
    path.parent.mkdir(parents=True)
    path.with_name("9.log").write_text("slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT 1 DUE TO TIME LIMIT ***")
    os.utime(path.with_name("9.log"), (100, 100))
    return path


@pytest.mark.parametrize("said", TOO_MUCH)
def test_a_job_that_took_too_much_is_one_line_that_names_its_last_log_and_what_to_raise(log: Path, said: str) -> None:
    log.write_text(f"some words\n{said}\nand more")
    (error,) = slurm.ended([("rule_check/reviews", "check"), ("rule_capture/a_b_c", "capture")], since=0)
    raised = "runtime" if "time" in TOO_MUCH[said] else "mem_mb"
    assert str(error).startswith(
        f"{log}: SLURM ended the job, which {TOO_MUCH[said]}. Mend: give check a higher {raised} "
    )


def test_what_failed_by_itself_or_in_an_earlier_run_is_not_blamed_on_slurm(log: Path) -> None:
    assert slurm.ended([("rule_check/reviews", "check")], since=200) == []
    log.write_text("Error in rule check")
    assert slurm.ended([("rule_check/reviews", "check")], since=0) == []
