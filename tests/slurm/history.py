"""The same SLURM with slurmdbd, which keeps a history of jobs in a database of its own."""

import getpass
import subprocess
from pathlib import Path

from cluster import PATH, Cluster, free_port, wait_until

PROGRAMS = "slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr"

DBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=history
CommunicationParameters=NoInAddrAny
"""


class ClusterWithHistory(Cluster):
    """A SLURM whose `sacct` knows of the jobs that have ended."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.port = free_port()
        self.history = [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={self.port}",
            f"AccountingStoragePass={folder}/munge.socket",
            "AccountingStoreFlags=job_comment",
        ]
        self.env["MYSQL_UNIX_PORT"] = str(folder / "db.socket")

    def start_controller(self) -> None:
        if "slurmdbd" not in self.processes:
            self.start_database()
        super().start_controller()

    def start_database(self) -> None:
        folder, user = self.folder, getpass.getuser()
        place = ["--no-defaults", f"--datadir={folder}/db", f"--user={user}"]
        made = ["mariadb-install-db", *place, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(made, env={**self.env, "PATH": PATH}, check=True, capture_output=True)
        open_to_all = ["--skip-networking", "--skip-grant-tables", f"--socket={folder}/db.socket"]
        self.start("database", "mariadbd", *place, *open_to_all, f"--pid-file={folder}/db.pid")
        wait_until((folder / "db.socket").exists, "the database")
        self.write("slurmdbd.conf", DBD_CONF.format(folder=folder, port=self.port, user=user)).chmod(0o600)
        self.start("slurmdbd", "slurmdbd", "-D")
        wait_until(lambda: "error" not in self.ask("sacctmgr", "-n", "list", "cluster"), "slurmdbd")
        self.command("sacctmgr", "-i", "add", "cluster", "tests")
