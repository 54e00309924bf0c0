"""A whole run that is killed outright in any of its stages, with all its jobs, and then started again as it says itself."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from fetched import FETCHING, OFFLINE, STAGES, files, half_written, made_by, online
from hub_served import Hub
from worlds import World

# Every process of a run imports this as it starts. Those of one script count the files that they are about to put in their
# place, all in one file, and who comes to the last of them kills every process of the run.
HOOK = """
import os, signal, sys

if sys.orig_argv[-1].endswith(".{}.py".format(os.environ["KILLED_IN"])):
    fsync, counted = os.fsync, os.open(os.environ["COUNTED"], os.O_RDWR | os.O_CREAT | os.O_APPEND)
    def counting(handle):
        os.write(counted, b".")
        if os.lseek(counted, 0, os.SEEK_CUR) == int(os.environ["KILLED_AT"]):
            os.killpg(os.getpgrp(), signal.SIGKILL)
        fsync(handle)
    os.fsync = counting
"""


@pytest.fixture(scope="module")
def undisturbed(fetched_world: World) -> dict[str, bytes]:
    return made_by(fetched_world.folder)


def begun(world: World, target: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A run in a group of processes of its own."""
    with (world.folder / "killed.txt").open("wb") as printed:
        return subprocess.Popen(
            world.command(target),
            cwd=world.folder,
            env={**os.environ, **environment},
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )


def written(world: World) -> dict[Path, int]:
    """The files of a run -> when they were written; what Snakemake writes of its own accord is not among them."""
    results = world.folder / "results"
    ours = (path for path in files(results) if path.name != "snakemake-report.html" and "benchmarks" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in ours}


def go_on(world: World, target: str, environment: dict[str, str], undisturbed: dict[str, bytes]) -> set[Path]:
    """Start a killed run again and compare it with an undisturbed one; returns the files that it has made or made anew."""
    before = written(world)
    world.run(target, "--unlock", environment=environment)
    world.run(target, environment=environment)
    assert not half_written(world.folder / "results")
    assert made_by(world.folder) == undisturbed
    assert world.planned() == {}
    return {path for path, at in written(world).items() if before.get(path) != at}


# The script, the file that it is at when it is killed, and how many files are to be kept of those that it makes.
MOMENTS = [
    ("dataset", 1, 0),
    ("dataset", 2, 0),
    ("model", 1, 5),
    ("sae", 1, 0),
    ("capture", 13, 5),
    ("leakage", 1, 0),
    ("probe", 8, 3),
    ("probe_text", 1, 0),
    ("transfer", 3, 2),
    ("transfer_tables", 3, 0),
    ("tables", 5, 0),
    ("findings", 1, 0),
    ("figure", 14, 8),
    ("explore", 1, 0),
    ("report", 1, 0),
]


@pytest.mark.parametrize(("script", "nth", "kept"), MOMENTS, ids=[f"{script}-{nth}" for script, nth, _ in MOMENTS])
def test_killed_at_a_file_it_goes_on_and_ends_as_if_nothing_had_been(
    fetched_world: World,
    study_hub: Hub,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    script: str,
    nth: int,
    kept: int,
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    stage = STAGES[script]
    made = stage.forget(world.folder / "results")
    environment = online(study_hub, tmp_path / "cache") if script in FETCHING else OFFLINE
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    hook = {"PYTHONPATH": path, "KILLED_IN": script, "KILLED_AT": str(nth), "COUNTED": str(tmp_path / "counted")}
    status = begun(world, stage.target, environment | hook).wait(timeout=300)
    assert status == -signal.SIGKILL, (world.folder / "killed.txt").read_text()
    # It was writing, and of what it wrote something lacks.
    assert half_written(world.folder / "results")
    assert any(not path.is_file() for path in made)
    again = go_on(world, stage.target, environment, undisturbed)
    assert again <= made
    assert len(made - again) >= kept


DOWNLOADS = {"dataset": "train.parquet", "model": "model.safetensors", "sae": "sae-l3/sae_weights.safetensors"}


@pytest.mark.parametrize("script", DOWNLOADS)
def test_killed_half_way_through_a_download_it_goes_on_and_ends_as_if_nothing_had_been(
    fetched_world: World, study_hub: Hub, undisturbed: dict[str, bytes], tmp_path: Path, script: str
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    stage = STAGES[script]
    made = stage.forget(world.folder / "results")
    environment = online(study_hub, tmp_path / "cache")
    study_hub.slow, study_hub.half_sent = DOWNLOADS[script], threading.Event()
    try:
        run = begun(world, stage.target, environment)
        assert study_hub.half_sent.wait(300), (world.folder / "killed.txt").read_text()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    finally:
        study_hub.slow = None
    assert not [path for path in made if path.name == "revision.json" and path.is_file()]
    assert go_on(world, stage.target, environment, undisturbed) <= made
