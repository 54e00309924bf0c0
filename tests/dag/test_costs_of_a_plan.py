"""`snakemake plan` beside what a run would do, and a config that is not pinned yet."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from worlds import ROOT, own_config, own_world


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_plan_counts_the_jobs_that_a_run_would_do(tmp_path: Path, tiny_model: Path) -> None:
    world = own_world(tmp_path / "world", tiny_model)
    printed = world.run("plan", config=own_config())
    plan = json.loads((world.folder / "results/plan.json").read_text())
    jobs, more = ({rule: count["left"] for rule, count in plan[kind].items()} for kind in ("jobs", "paper_jobs"))
    assert jobs == dict(world.planned())
    assert jobs | more == dict(world.planned(target="paper"))
    assert (world.folder / "results/plan.txt").read_text() in printed
    # What has been planned once is said again.
    assert "hours of one processor" in world.run("plan")


def test_a_config_that_is_not_pinned_is_planned_and_not_run(tmp_path: Path) -> None:
    given = ["--configfile", str(ROOT / "config/paper.yaml")]
    planned = snakemake(tmp_path, "plan", *given)
    assert planned.returncode == 0, planned.stderr
    assert "not pinned" in planned.stdout
    refused = snakemake(tmp_path, *given)
    assert refused.returncode != 0
    assert "source.revision: it is not pinned to a commit, and 31 others with it. Mend: run python -m" in refused.stderr
    assert not (tmp_path / "results/datasets").exists()


def test_what_is_pinned_runs_beside_what_is_not(tmp_path: Path, tiny_model: Path) -> None:
    world = own_world(tmp_path / "world", tiny_model)
    config: dict[str, Any] = own_config()
    config["datasets"]["later"] = {"source": {"hub": "own/later", "revision": "unpinned"}}
    world.run("results/datasets/reviews.parquet", config=config)
    assert (world.folder / "results/datasets/reviews.json").is_file()
