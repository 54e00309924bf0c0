"""Jobs side by side on one machine: no more than its memory holds, and none with more threads than it holds cores."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from worlds import ROOT, World, own_config, own_world

SNAKEFILE = """
from tessera import machine
machine.memory_mb = lambda: 4500
machine.granted_cores = lambda: {granted}
{bounds}
rule all:
    input: expand("{{name}}.done", name=list("abcdef"))
rule one:
    output: "{{name}}.done"
    resources: mem_mb={asked}
    shell: "mkdir -p running; touch running/{{wildcards.name}}; ls running | wc -l > {{output}};"
        " sleep 0.5; rm running/{{wildcards.name}}"
"""


def most_at_once(folder: Path, asked: int, granted: int | None = None, *options: str) -> int:
    """How many jobs that ask for so much memory ran side by side, where 4,500 MB are."""
    common = (ROOT / "workflow/rules/common.smk").read_text()
    bounds = re.findall(r"^if .*(?:\n.*)?machine\.(?:memory_mb|granted_cores).*\n(?:    .*\n)*", common, re.MULTILINE)
    assert len(bounds) == 2
    snakefile = SNAKEFILE.format(bounds="".join(bounds), asked=asked, granted=granted)
    (folder / "Snakefile").write_text(snakefile)
    command = [sys.executable, "-m", "snakemake", "--cores", "6", *options]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return max(int(path.read_text()) for path in folder.glob("*.done"))


def test_no_more_jobs_run_at_once_than_the_memory_holds(tmp_path: Path) -> None:
    assert most_at_once(tmp_path, 2000) == 2


def test_a_job_that_asks_for_more_than_there_is_runs_alone(tmp_path: Path) -> None:
    assert most_at_once(tmp_path, 9000) == 1


def test_the_memory_given_on_the_command_line_wins(tmp_path: Path) -> None:
    assert most_at_once(tmp_path, 2000, None, "--resources", "mem_mb=6500") == 3


def test_within_a_job_of_slurm_no_more_run_at_once_than_it_has_cores(tmp_path: Path) -> None:
    assert most_at_once(tmp_path, 100, 2) == 2


@pytest.mark.parametrize(("options", "limited"), [((), False), (("--max-jobs-per-timespan", "50/1s"), True)])
def test_jobs_that_are_ready_are_looked_at_when_one_has_ended_and_not_by_the_clock(
    tmp_path: Path, tiny_model: Path, options: tuple[str, ...], limited: bool
) -> None:
    world, config = own_world(tmp_path / "world", tiny_model), own_config()
    reviews = config["datasets"]["reviews"]
    config["datasets"] = {f"reviews-{n}": reviews for n in range(5)}
    printed = world.run("datasets", "--verbose", "--cores", "1", *options, config=config)
    ended = printed.count("Finished jobid")
    looks = printed.count("Resources before job selection")
    assert ended == 6
    assert (looks > ended) == limited


# Every process of a run imports this as it starts; those of the workflow's scripts tell of their threads as they end.
WATCH = """
import atexit, json, os, sys

def tell():
    if ".snakemake/scripts" not in sys.argv[0]:
        return
    found = {"script": sys.argv[0].rpartition(".")[0].rpartition(".")[2], "RAYON": os.environ.get("RAYON_NUM_THREADS")}
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    if "pyarrow" in sys.modules:
        found["arrow"] = sys.modules["pyarrow"].cpu_count()
    if "numpy" in sys.modules:
        import threadpoolctl
        found["blas"] = max([pool["num_threads"] for pool in threadpoolctl.threadpool_info()], default=0)
    with open(os.path.join(os.environ["TOLD"], str(os.getpid())), "w") as file:
        json.dump(found, file)

atexit.register(tell)
"""


@pytest.fixture
def told(tmp_path: Path, tiny_model: Path) -> list[dict[str, Any]]:
    """What each job of a run told of its threads."""
    world: World = own_world(tmp_path / "world", tiny_model)
    told = tmp_path / "told"
    told.mkdir()
    (told / "sitecustomize.py").write_text(WATCH)
    config = own_config() | {"capture": {"threads": 2}}
    path = os.pathsep.join([str(told), *filter(None, [os.environ.get("PYTHONPATH")])])
    world.run("probes", "checks", config=config, environment={"PYTHONPATH": path, "TOLD": str(told)})
    return [json.loads(path.read_text()) for path in told.iterdir() if path.suffix != ".py"]


def test_no_job_has_more_threads_than_the_cores_it_holds(told: list[dict[str, Any]]) -> None:
    assert {found["script"] for found in told} >= {"capture", "probe", "dataset", "model", "sae", "leakage"}
    for found in told:
        cores = 2 if found["script"] == "capture" else 1
        assert found["RAYON"] == str(cores), found
        assert {found.get(pool, cores) for pool in ("torch", "arrow", "blas")} == {cores}, found
