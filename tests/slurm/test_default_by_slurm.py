"""The embedded default, thinner and with shorter training, on a cluster: the same results as on a workstation, job by job."""

import subprocess
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from cluster import NODES, Cluster, Job, snakemake
from worlds import World, thin_default

from tessera import snapshots

# The first test waits for two whole runs.
pytestmark = pytest.mark.timeout(2400)

# What says how long jobs took, and where or when. A job has as many threads on a cluster as here, so all else has the same bytes.
TIMED = "run.json", "report.html", "snakemake-report.html", snapshots.NOTES
# What runs where Snakemake itself does, and what shares jobs.
HERE = "tables", "figure", "findings", "report", "transfer_tables", "scoreboard"
TOGETHER = "probe", "probe_text"


@dataclass
class Ran(World):
    """A world after its run on the cluster: its config, how many jobs of each rule it needed, what it printed, and SLURM's jobs."""

    config: dict[str, Any]
    wanted: Counter[str]
    printed: str
    jobs: list[Job]


@pytest.fixture(scope="module")
def workstation(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("workstation") / "world")
    world.folder.mkdir()
    world.run(config=thin_default())
    return world


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Ran:
    world = World(tmp_path_factory.mktemp("ran") / "world")
    world.folder.mkdir()
    wanted = world.planned(thin_default())
    done = subprocess.run(
        snakemake(jobs=4), cwd=world.folder, env=cluster.env, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-6000:]
    return Ran(world.folder, thin_default(), wanted, printed, cluster.jobs())


def results(world: World) -> dict[str, bytes]:
    """Path -> content of all that a run has made, but for how long things took and where."""
    folder = world.folder / "results"
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path for name, path in paths.items() if path.name not in TIMED and not name.startswith("benchmarks/")}
    return {name: path.read_bytes() for name, path in kept.items()}


def test_what_a_cluster_makes_has_the_bytes_of_what_a_workstation_makes(workstation: World, ran: Ran) -> None:
    made, expected = results(ran), results(workstation)
    parts = {name.split("/")[0] for name in expected}
    assert parts >= {
        "demo",
        "datasets",
        "models",
        "saes",
        "activations",
        "probes",
        "transfer",
        "explorer",
        "tables",
        "figures",
    }
    assert sum(name.startswith("tables/") for name in expected) == 28
    assert made.keys() == expected.keys()
    assert [name for name, content in made.items() if content != expected[name]] == []


def test_the_run_ends_with_the_report_and_nothing_is_left_to_do(ran: Ran) -> None:
    assert f"The report is {ran.folder / 'results/report.html'}. What it finds:" in ran.printed
    assert not ran.planned()


def test_each_job_is_one_of_the_cluster_but_for_those_that_run_where_snakemake_does(ran: Ran) -> None:
    assert {job.state for job in ran.jobs} == {"COMPLETED"}
    expected = ran.wanted - Counter(dict.fromkeys([*HERE, *TOGETHER], 10_000))
    assert expected.keys() >= {
        "demo_model",
        "dataset",
        "model",
        "sae",
        "capture",
        "behaviour",
        "transfer",
        "check",
        "explore",
    }
    assert Counter(job.rule for job in ran.jobs if not job.rule.startswith("probes-")) == expected
    assert {job.node for job in ran.jobs} == set(NODES)


def test_all_probes_of_a_model_on_a_dataset_are_one_job(ran: Ran) -> None:
    datasets, models = ran.config["probes"]["datasets"], ran.config["probes"]["models"]
    expected = [f"probes-{dataset}_probe_text" for dataset in datasets]
    expected += [f"probes-{model}-{dataset}_probe" for model in models for dataset in datasets]
    assert sorted(job.rule for job in ran.jobs if job.rule.startswith("probes-")) == sorted(expected)


def test_jobs_that_run_a_model_have_a_card_and_no_others(ran: Ran) -> None:
    assert {job.rule for job in ran.jobs if job.cards} == {"capture", "behaviour"}
    assert {job.cards for job in ran.jobs if job.rule in ("capture", "behaviour")} == {"gres:gpu:1"}


def test_every_job_leaves_its_log_and_slurm_keeps_none_of_a_job_that_did_well(ran: Ran, workstation: World) -> None:
    logs = {str(path.relative_to(ran.folder)) for path in (ran.folder / "logs").rglob("*") if path.is_file()}
    expected = (path for path in (workstation.folder / "logs").rglob("*") if path.is_file())
    assert logs == {str(path.relative_to(workstation.folder)) for path in expected}
    assert {path.name for path in ran.folder.iterdir()} == {".snakemake", "logs", "mine.yaml", "results"}
