"""What is said of the jobs that an earlier run has left with SLURM."""

from pathlib import Path

import pytest

from tessera import slurm
from tessera.errors import UserError

# Jobs of this folder, of another one, and of someone who submits here without Snakemake.
ANSWER = """\
echo '12|{here}|rule_capture_wildcards_a_b'
echo '15_[2-3]|{here}|rule_probes-a-b_probe'
echo '13|{here}/more|rule_capture_wildcards_a_b'
echo '14|{here}|(null)'
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
