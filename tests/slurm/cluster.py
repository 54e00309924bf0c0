"""A real SLURM for tests, on one machine and on loopback: munge, the controller and two nodes, all in one folder.

Nothing of it touches a SLURM that the machine may have: configuration, key, sockets, ports and state are its own, and
every command finds them through `SLURM_CONF`. The nodes claim cards that are empty files, and memory that may not be there.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = "munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel"
# Debian keeps the daemons where only root looks.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
NODES = "n1", "n2"

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
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
GresTypes=gpu
AccountingStorageType=accounting_storage/none
Epilog={folder}/epilog
"""
NODE = """\
NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=16000 Gres=gpu:1
"""
PARTITION = """\
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
EPILOG = "#!/bin/sh\nexit 0\n"


def missing() -> list[str]:
    """The programs of SLURM that are not here."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Fail unless it becomes true in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


class Cluster:
    """A SLURM of two nodes with a core and a card each. Use it as a context."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        path = os.pathsep.join([str(folder / "bin"), PATH])
        self.env = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        for name in ("bin", "state", *NODES):
            (self.folder / name).mkdir()
        names = {"folder": self.folder, "host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        conf = CONF.format(port=free_port(), **names)
        conf += "".join(NODE.format(name=name, port=free_port(), **names) for name in NODES)
        self.write("slurm.conf", conf + PARTITION)
        self.write(
            "gres.conf", "".join(f"NodeName={name} Name=gpu File={self.folder}/{name}/card0\n" for name in NODES)
        )
        for name in NODES:
            (self.folder / name / "card0").touch()
        self.write("epilog", EPILOG).chmod(0o755)
        # Within a job, Snakemake's executor starts srun without any of SLURM's variables, this one included.
        srun = shutil.which("srun", path=PATH)
        self.write("bin/srun", f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {srun} "$@"\n').chmod(0o755)
        key, made = self.folder / "munge.key", self.folder / "munge"
        made.mkdir()
        self.command("mungekey", "--create", f"--keyfile={key}")
        files = [f"--{kind}-file={made}/munged.{kind}" for kind in ("log", "pid", "seed")]
        self.start(
            "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}", *files
        )
        wait_until((self.folder / "munge.socket").exists, "munge")
        self.start_controller()
        for name in NODES:
            self.start_node(name)
        wait_until(lambda: self.states() == dict.fromkeys(NODES, "IDLE"), f"the nodes, see {self.folder}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.running("controller"):
            self.command("scancel", "--user", getpass.getuser())
            wait_until(lambda: not self.jobs(), "the end of cancelled jobs")
        for name in reversed(list(self.processes)):
            self.stop(name)

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    # --- daemons ---

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            program = [name, *command] if name == "munged" else list(command)
            self.processes[name] = subprocess.Popen(program, env=self.env, stdout=out, stderr=out)

    def start_controller(self) -> None:
        self.start("controller", "slurmctld", "-D")
        wait_until(
            lambda: self.ask("scontrol", "ping").startswith("Slurmctld(primary) at") and self.up(), "the controller"
        )

    def up(self) -> bool:
        return "is UP" in self.ask("scontrol", "ping")

    def start_node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name)

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon that this has started. The jobs on a node live on without it."""
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(timeout=30)

    def running(self, name: str) -> bool:
        return name in self.processes and self.processes[name].poll() is None

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
        lines = self.command("sinfo", "--Node", "--noheader", "--format=%N %T").split("\n")
        return {node: state.upper() for node, state in (line.split() for line in lines if line)}

    def jobs(self, *options: str) -> dict[str, str]:
        """Rule -> state, of the jobs that wait or run, or of all with `--states=all`."""
        lines = self.command("squeue", "--noheader", "--format=%i|%T|%k", *options).splitlines()
        return {job: (state, comment) for job, state, comment in (line.split("|") for line in lines)}


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
