"""With a history of jobs (slurmdbd), a run is watched as without, and says how well its jobs used what they had."""

import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, missing, snakemake, wait_until
from history import PROGRAMS, ClusterWithHistory
from worlds import own_config, own_world


@pytest.fixture(scope="module")
def cluster(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if programs := missing(PROGRAMS):
        pytest.skip(f"no slurmdbd: {', '.join(programs)} not installed (apt-get install slurmdbd mariadb-server)")
    with ClusterWithHistory(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def test_a_cancelled_job_is_noticed_and_the_report_of_efficiency_is_written(
    tmp_path: Path, tiny_model: Path, cluster: Cluster
) -> None:
    folder = own_world(tmp_path / "world", tiny_model).folder
    (folder / "mine.yaml").write_text(yaml.safe_dump(own_config()))
    with (tmp_path / "printed.txt").open("w") as printed:
        process = subprocess.Popen(
            snakemake("checks", jobs=1), cwd=folder, env=cluster.env, stdout=printed, stderr=printed
        )
    try:
        wait_until(lambda: bool(cluster.jobs("RUNNING")), "a first job", 120)
        cluster.command("scancel", *(job.id for job in cluster.jobs("RUNNING")))
        assert process.wait(timeout=400) == 0, (tmp_path / "printed.txt").read_text()[-4000:]
    finally:
        process.kill()
    states = cluster.command("sacct", "-X", "--noheader", "--parsable2", "--format=State").split("\n")
    assert sum(state.startswith("CANCELLED by") for state in states) == 1
    assert states.count("COMPLETED") == 2
    (report,) = (folder / "logs/slurm").glob("efficiency_report_*.csv")
    with report.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["RuleName"].partition("_wildcards")[0] for row in rows} == {"rule_dataset", "rule_check"}
