"""Jobs that stop in their middle until a test lets them go on, or that take far more memory than they said."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster, Job, snakemake, wait_until
from worlds import World

# Every process of a run imports this as it starts. Those of a script that a plan is named after stop, or eat, before they
# rename a file for the nth time to a name like the one planned: where something is finished, and something is not.
HOOK = """
import fnmatch, json, os, sys, time
from itertools import count

script = sys.orig_argv[-1].rpartition("/.snakemake/scripts/")[2].partition(".")[2].removesuffix(".py")
path = os.path.join(os.environ["MISHAPS"], script + ".plan")

def watch(event, arguments):
    if event == "os.rename" and fnmatch.fnmatch(os.fspath(arguments[1]), plan["file"]) and next(times) == plan["nth"]:
        eaten = b"x" * (plan["megabytes"] * 1_000_000)
        open(os.path.join(os.environ["MISHAPS"], f"{script}.{os.environ['SLURM_JOB_ID']}.{os.getpid()}"), "w").close()
        end = time.monotonic() + plan["seconds"]
        while os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.05)

if script and os.path.exists(path):
    plan, times = json.load(open(path)), count(1)
    sys.addaudithook(watch)
"""


@dataclass
class Run:
    """A run through SLURM whose jobs meet with mishaps."""

    cluster: Cluster
    world: World
    process: subprocess.Popen[bytes]
    mishaps: Path
    # The jobs that were there before it.
    earlier: int

    @property
    def printed(self) -> str:
        return (self.mishaps / "printed").read_text()

    def jobs(self, rule: str = "", *states: str) -> list[Job]:
        """Its jobs, or those of a rule or group."""
        jobs = self.cluster.jobs(*states)
        return [job for job in jobs if int(job.id) > self.earlier and job.rule == (rule or job.rule)]

    def wait_for(self, script: str, times: int = 1) -> Job:
        """The job of the script that has come to where it stops, for so many times in all."""
        marks = f"{script}.[0-9]*"
        wait_until(lambda: self.process.poll() is not None or len(list(self.mishaps.glob(marks))) >= times, marks, 200)
        assert self.process.poll() is None, self.printed
        latest = max(self.mishaps.glob(marks), key=lambda path: path.stat().st_mtime_ns)
        return next(job for job in self.jobs() if job.id == latest.name.split(".")[1])

    def let_go(self, script: str) -> None:
        (self.mishaps / f"{script}.plan").unlink()

    def end(self) -> int:
        """Its exit status, when it has ended."""
        wait_until(
            lambda: self.process.poll() is not None,
            f"the end of the run, which has printed {self.mishaps}/printed",
            300,
        )
        return self.process.returncode


def plan(folder: Path, script: str, file: str, nth: int = 1, megabytes: int = 0, seconds: float = 300) -> None:
    """Have the script stop before it writes such a file for the nth time, for some seconds at most."""
    folder.mkdir(exist_ok=True)
    text = json.dumps({"file": file, "nth": nth, "megabytes": megabytes, "seconds": seconds})
    (folder / f"{script}.plan").write_text(text)


@contextmanager
def at_work(cluster: Cluster, world: World, mishaps: Path, *options: str) -> Iterator[Run]:
    """A run, and the end of all that is left of it."""
    mishaps.mkdir(exist_ok=True)
    (mishaps / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(mishaps), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**cluster.env, "PYTHONPATH": path, "MISHAPS": str(mishaps)}
    earlier = max((int(job.id) for job in cluster.jobs()), default=0)
    with (mishaps / "printed").open("ab") as printed:
        command = snakemake(*options, jobs=8)
        process = subprocess.Popen(
            command, cwd=world.folder, env=env, stdout=printed, stderr=printed, start_new_session=True
        )
    run = Run(cluster, world, process, mishaps, earlier)
    try:
        yield run
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if left := [job.id for job in run.jobs() if job.state in ("PENDING", "RUNNING")]:
            cluster.command("scancel", *left)
