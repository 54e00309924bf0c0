"""What SLURM still runs of an earlier run, whose Snakemake was killed before it could cancel its jobs; and why it ended a job.

The Snakefile imports this while it is parsed, so nothing here may import more than the standard library.
"""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from tessera.errors import UserError

# What Snakemake's executor begins the comment of its jobs with.
MARK = "rule_"
# Where the profile has SLURM write what jobs print, a folder for each; its own words among them.
LOGS = Path("logs/slurm")
# What SLURM, or the kernel on its behalf, writes when it ends a job -> what a job took too much of, and what grants more.
WORDS = {
    "exceeded memory limit": ("memory", "mem_mb"),
    "oom_kill": ("memory", "mem_mb"),
    "oom-kill": ("memory", "mem_mb"),
    "DUE TO TIME LIMIT": ("time", "runtime"),
}


def require_none_left(folder: Path) -> None:
    """A `UserError` if SLURM has jobs of Snakemake in `folder`: the same jobs would be submitted a second time."""
    left = [job for job, _ in _jobs(folder)]
    if left:
        some = f"{' '.join(left[:20])}{' ...' if len(left) > 20 else ''}"
        wrong = (
            f"SLURM still has {len(left)} job{'s' if len(left) > 1 else ''} of an earlier run in this folder: {some}"
        )
        mend = f"wait for their end, or cancel them with scancel {' '.join(left)}; then run the same command again"
        raise UserError(str(folder), wrong, mend)


def keep_memory(executor: ModuleType) -> None:
    """Have Snakemake's executor take it that jobs which have ended are remembered for as long as SLURM says when a run begins.

    It asks that each time it looks at its jobs. A controller that is away just then counts as one that forgets at once, so
    it turns to sacct, which without slurmdbd knows no job: it would ask that for ten minutes, and then wait for ever.
    """
    seconds = executor.get_min_job_age()
    if seconds is not None:
        executor.get_min_job_age = lambda: seconds  # type: ignore[attr-defined]


def cancel_left(folder: Path) -> list[str]:
    """Cancel the jobs of Snakemake in `folder` at the end of its run, and give their ids.

    Snakemake cancels the jobs of a run that is interrupted, but for those that it is asking about or submitting just then.
    """
    left = [job for job, state in _jobs(folder) if state != "COMPLETING"]
    if left:
        _ask("scancel", *left)
    return left


def _jobs(folder: Path) -> list[tuple[str, str]]:
    """The ids and states of the jobs that wait or run in a folder; none where there is no SLURM to ask."""
    if shutil.which("squeue") is None:
        return []
    rows = [line.split("|", 3) for line in _ask("squeue", "--noheader", "--format=%i|%T|%Z|%k").splitlines()]
    return [(job, state) for job, state, place, comment in rows if Path(place) == folder and comment.startswith(MARK)]


def _ask(*command: str) -> str:
    """What a command of SLURM answers."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of a user's in it
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise UserError(command[0], reason, "see to it that SLURM answers, then run the same command again")
    return done.stdout


def ended(failed: Iterable[tuple[str, str]], since: float) -> list[UserError]:
    """A line for each job that SLURM has ended for taking too much.

    `failed` are folders of logs and the rules whose jobs have failed; what was written before `since` is of earlier runs.
    """
    return [error for folder, rule in sorted(set(failed)) if (error := _ended(LOGS / folder, rule, since))]


def _ended(folder: Path, rule: str, since: float) -> UserError | None:
    """Why the last job of a folder was ended; None where SLURM has not said so."""
    logs = [path for path in folder.glob("*.log") if path.stat().st_mtime >= since]
    if not logs:
        return None
    log = max(logs, key=lambda path: path.stat().st_mtime)
    text = log.read_text(encoding="utf-8", errors="replace")
    for words, (what, resource) in WORDS.items():
        if words in text:
            mend = (
                f"give {rule} a higher {resource} under set-resources in profiles/slurm/config.yaml, "
                "then run the same command again"
            )
            return UserError(str(log), f"SLURM ended the job, which took more {what} than it had asked for", mend)
    return None
