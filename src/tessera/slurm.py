"""What SLURM still runs of an earlier run, whose Snakemake was killed before it could cancel its jobs.

The Snakefile imports this while it is parsed, so nothing here may import more than the standard library.
"""

import shutil
import subprocess
from pathlib import Path

from tessera.errors import UserError

# What Snakemake's executor begins the comment of its jobs with.
MARK = "rule_"


def require_none_left(folder: Path) -> None:
    """A `UserError` if SLURM has jobs of Snakemake in `folder`: the same jobs would be submitted a second time."""
    left = _jobs(folder)
    if left:
        some = f"{' '.join(left[:20])}{' ...' if len(left) > 20 else ''}"
        wrong = (
            f"SLURM still has {len(left)} job{'s' if len(left) > 1 else ''} of an earlier run in this folder: {some}"
        )
        mend = f"wait for their end, or cancel them with scancel {' '.join(left)}; then run the same command again"
        raise UserError(str(folder), wrong, mend)


def _jobs(folder: Path) -> list[str]:
    """The ids of the jobs that wait or run in a folder; none where there is no SLURM to ask."""
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--noheader", "--format=%i|%Z|%k"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of a user's in it
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise UserError("squeue", reason, "see to it that SLURM answers, then run the same command again")
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return [job for job, place, comment in rows if Path(place) == folder and comment.startswith(MARK)]
