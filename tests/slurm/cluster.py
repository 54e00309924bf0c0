"""A real SLURM for tests, on one machine and on loopback: munge, the controller and two nodes, all in one folder.

Nothing of it touches a SLURM that the machine may have: configuration, key, sockets, ports and state are its own, and
every command finds them through `SLURM_CONF`. The nodes claim cards that are empty files, and memory that may not be there.
Where this user may arrange it, each has a name of its own and its own folder for temporary files, which is seen on no other.
"""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PROGRAMS = "munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo"
# Debian keeps the daemons where only root looks.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
NODES = "n1", "n2"
# States of jobs that have not ended.
ALIVE = "PENDING", "RUNNING", "COMPLETING"

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
KillWait=2
MinJobAge=7200
GresTypes=gpu
Epilog={folder}/epilog
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = """\
NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=64000 Gres=gpu:1
"""
CARD = """\
NodeName={name} Name=gpu File={folder}/{name}/card0
"""
WITHOUT_HISTORY = ["AccountingStorageType=accounting_storage/none"]
DOES_NOTHING = "#!/bin/sh\nexit 0\n"
# Within a job, Snakemake's executor starts srun without any of SLURM's variables, the place of the configuration included.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


# Snakemake, but that it asks every second. Of itself it asks the more seldom the longer no job has ended, which spares the
# controller of a real cluster, and would have tests wait. Ctrl-C reaches it even where whoever runs the tests ignores that.
ASKS_OFTEN = """
import signal
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
# What makes a node one of its own before its daemon starts.
APART = """
mount -t tmpfs none {tmp} && mount --bind {folder}/hosts /etc/hosts && hostname "$SLURMD_NODENAME" && exec "$@"
"""


class Job(NamedTuple):
    """What SLURM says of a job."""

    id: str
    state: str
    comment: str
    node: str
    cores: str
    memory: str
    minutes: str
    cards: str
    restarts: str

    @property
    def rule(self) -> str:
        """The rule or group that Snakemake made it for."""
        return self.comment.removeprefix("rule_").partition("_wildcards_")[0]


# What `scontrol` calls these.
FIELDS = "JobId", "JobState", "Comment", "NodeList", "NumCPUs", "MinMemoryNode", "TimeLimit", "TresPerJob", "Restarts"


def missing(programs: Sequence[str] = PROGRAMS) -> list[str]:
    """The programs that are not here."""
    return [name for name in programs if shutil.which(name, path=PATH) is None]


def wait_until(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Fail unless it becomes true in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


def environments() -> Iterator[tuple[int, set[bytes]]]:
    """The processes of this user that live, each with its environment."""
    for process in Path("/proc").glob("[0-9]*"):
        # One that has ended since, or is someone else's.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            yield int(process.name), set((process / "environ").read_bytes().split(b"\0"))


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def snakemake(*options: str, jobs: int) -> list[str]:
    """The command that runs the workflow through SLURM where a mine.yaml is, and asks often how the jobs are."""
    command = [sys.executable, "-c", ASKS_OFTEN, *options, "--snakefile", str(ROOT / "Snakefile")]
    return [*command, "--profile", str(ROOT / "profiles/slurm"), "--configfile", "mine.yaml", "--jobs", str(jobs)]


class Cluster:
    """A SLURM of two nodes with four cores and a card each. Use it as a context."""

    history = WITHOUT_HISTORY

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        own = {"SLURM_CONF": str(folder / "slurm.conf"), "TMPDIR": str(folder / "tmp")}
        others = {
            key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SQUEUE_"))
        }
        self.env = {**others, **own, "PATH": os.pathsep.join([str(folder / "bin"), PATH]), "HF_HUB_OFFLINE": "1"}
        # The command that gives a node a name and a folder for temporary files of its own; none where that cannot be had.
        self.apart: list[str] = []

    def __enter__(self) -> "Cluster":
        try:
            self.configure()
            self.start_munge()
            self.start_controller()
            for name in NODES:
                self.start_node(name)
            wait_until(lambda: self.states() == dict.fromkeys(NODES, "IDLE"), f"the nodes, see {self.folder}")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for name in set(NODES) - self.processes.keys():
                # A node that comes back ends what is left on it of jobs that were given up.
                self.start_node(name)
            self.command("scancel", "--user", getpass.getuser())
            wait_until(lambda: not self.jobs(*ALIVE), "the end of cancelled jobs")
        finally:
            self.end()

    def configure(self) -> None:
        for name in ("bin", "state", "tmp", *NODES):
            (self.folder / name).mkdir()
        folders = {"folder": self.folder, "srun": shutil.which("srun", path=PATH)}
        names = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        nodes = [NODE.format(name=name, port=free_port(), **names) for name in NODES]
        conf = CONF.format(port=free_port(), **folders, **names)
        self.write("slurm.conf", "".join([conf, *nodes, *(f"{line}\n" for line in self.history)]))
        self.write("gres.conf", "".join(CARD.format(name=name, **folders) for name in NODES))
        for name in NODES:
            (self.folder / name / "card0").touch()
        self.write("epilog", DOES_NOTHING).chmod(0o755)
        self.write("bin/srun", SRUN.format(**folders)).chmod(0o755)
        self.write("hosts", f"{Path('/etc/hosts').read_text()}\n127.0.0.1 {' '.join(NODES)}\n")
        alone = APART.format(folder=self.folder, tmp=self.env["TMPDIR"])
        apart = ["unshare", "--mount", "--uts", "sh", "-c", alone, "sh"]
        tried = {**self.env, "SLURMD_NODENAME": NODES[0]}
        if (
            shutil.which("unshare")
            and subprocess.run([*apart, "true"], env=tried, capture_output=True, check=False).returncode == 0
        ):
            self.apart = apart

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    # --- daemons ---

    def start(self, name: str, *command: str, **more: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            env = {**self.env, **more}
            self.processes[name] = subprocess.Popen(command, env=env, stdout=out, stderr=out)

    def start_munge(self) -> None:
        key, made = self.folder / "munge.key", self.folder / "munge"
        made.mkdir()
        self.command("mungekey", "--create", f"--keyfile={key}")
        files = [f"--{kind}-file={made}/munged.{kind}" for kind in ("log", "pid", "seed")]
        place = [f"--socket={self.folder}/munge.socket", f"--key-file={key}"]
        self.start("munge", "munged", "--foreground", "--force", *place, *files)
        wait_until((self.folder / "munge.socket").exists, "munge")

    def start_controller(self) -> None:
        self.start("controller", "slurmctld", "-D")
        wait_until(self.up, f"the controller, see {self.folder}")

    def up(self) -> bool:
        """Whether the controller answers."""
        return "is UP" in self.ask("scontrol", "ping")

    def start_node(self, name: str) -> None:
        self.start(name, *self.apart, "slurmd", "-D", "-N", name, SLURMD_NODENAME=name)

    def lose(self, name: str) -> None:
        """A node goes dark: its daemon and all that runs on it are gone at once."""
        self.stop(name, signal.SIGKILL)
        wanted = {
            f"{key}={value}".encode()
            for key, value in (("SLURM_CONF", self.env["SLURM_CONF"]), ("SLURMD_NODENAME", name))
        }
        # Those that are left when one is killed may start others.
        while doomed := [number for number, having in environments() if wanted <= having]:
            for number in doomed:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.05)

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon. The jobs on a node live on without its own."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(timeout=30)

    def end(self) -> None:
        for name in reversed(list(self.processes)):
            self.stop(name)

    # --- commands ---

    def command(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, *command: str) -> str:
        """What a command says, be it an error."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def states(self) -> dict[str, str]:
        """Node -> its state."""
        lines = self.command("sinfo", "--Node", "--noheader", "--format=%N %T").splitlines()
        return {node: state.upper() for node, state in map(str.split, lines)}

    def jobs(self, *states: str) -> list[Job]:
        """All jobs there have been, in the order in which they were submitted, or those in some states."""
        told = [
            dict(re.findall(r"(\w+)=(\S*)", line))
            for line in self.ask("scontrol", "--oneliner", "show", "jobs").splitlines()
        ]
        jobs = [Job(*(job.get(field, "") for field in FIELDS)) for job in told if "JobId" in job]
        return sorted((job for job in jobs if not states or job.state in states), key=lambda job: int(job.id))
