"""What a cluster does to a run: its nodes are lost, its jobs killed, its controller restarted. Nothing of it is in the tables."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import ALIVE, NODES, Cluster, Job, wait_until
from mishaps import Run, at_work, plan
from worlds import World, own_config, own_world

from tessera import slurm

TABLES = "results/tables/cells.parquet"
# A capture of a dozen shards, each in four files. It notes each that is finished.
CONFIG = own_config() | {"capture": {"shard_tokens": 300, "threads": 1}}
NOTE = "*/progress/*.json"
FILES = 4
CHECKED = "results/checks/*.json"


@pytest.fixture(scope="module")
def calm(slurm: None, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> World:
    """A world run to its tables where no cluster is."""
    world = own_world(tmp_path_factory.mktemp("calm") / "world", tiny_model)
    world.run(TABLES, "checks", config=CONFIG)
    return world


def owed(calm: World, folder: Path, *parts: str) -> World:
    """A copy of the calm world in which parts of the results are still to be made, and its tables too."""
    world = calm.copy(folder)
    for part in ("tables", *parts):
        shutil.rmtree(world.folder / "results" / part)
    return world


def check(run: Run, calm: World) -> None:
    """Fail unless the run has ended well, with the bytes of the calm one."""
    assert run.end() == 0, run.printed[-4000:]
    tables = sorted(path.name for path in (calm.folder / "results/tables").iterdir())
    assert len(tables) == 18
    assert sorted(path.name for path in (run.world.folder / "results/tables").iterdir()) == tables
    for name in tables:
        assert run.world.table(name) == calm.table(name), name


def shards(world: World) -> dict[str, int]:
    """The shards of the capture that are there -> when they were written."""
    folder = world.folder / "results/activations"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("**/part-*.parquet")}


def test_a_capture_goes_on_elsewhere_when_its_node_is_lost(tmp_path: Path, calm: World, cluster: Cluster) -> None:
    world = owed(calm, tmp_path / "world", "activations")
    plan(tmp_path / "mishaps", "capture", NOTE, nth=4)
    with at_work(cluster, world, tmp_path / "mishaps", TABLES) as run:
        lost = run.wait_for("capture").node
        kept = shards(world)
        cluster.lose(lost)
        try:
            again = run.wait_for("capture", 2)
            assert again.node in set(NODES) - {lost}
            assert again.restarts == "1"
            run.let_go("capture")
            check(run, calm)
        finally:
            cluster.start_node(lost)
            wait_until(lambda: cluster.states()[lost] == "IDLE", lost)
    assert len(run.jobs("capture")) == 1
    # Three shards had been noted.
    assert len(kept.items() & shards(world).items()) >= 3 * FILES


def test_a_group_of_probes_that_is_killed_is_tried_again_with_more_memory(
    tmp_path: Path, calm: World, cluster: Cluster
) -> None:
    world = owed(calm, tmp_path / "world", "probes")
    # All that it writes of a head but the record of it.
    plan(tmp_path / "mishaps", "probe", "*/probes.json")
    with at_work(cluster, world, tmp_path / "mishaps", TABLES) as run:
        killed = run.wait_for("probe")
        done = {path: path.stat().st_mtime_ns for path in (world.folder / "results/probes").glob("mine/**/*.parquet")}
        assert len(done) == 2 * 2
        cluster.command("scancel", "--signal=KILL", f"{killed.id}.0")
        run.let_go("probe")
        check(run, calm)
    first, second = run.jobs("probes-mine-reviews_probe")
    assert (first.state, second.state) == ("FAILED", "COMPLETED")
    assert megabytes(second) == 2 * megabytes(first)
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())


def megabytes(job: Job) -> float:
    """What a job asked for."""
    return float(job.memory[:-1]) * (1024 if job.memory.endswith("G") else 1)


def test_a_capture_that_has_to_make_room_and_is_then_cancelled_keeps_its_shards(
    tmp_path: Path, calm: World, cluster: Cluster
) -> None:
    world = owed(calm, tmp_path / "world", "activations")
    plan(tmp_path / "mishaps", "capture", NOTE, nth=3)
    with at_work(cluster, world, tmp_path / "mishaps", TABLES) as run:
        job = run.wait_for("capture")
        first = shards(world)
        cluster.command("scontrol", "requeue", job.id)
        job = run.wait_for("capture", 2)
        second = shards(world)
        cluster.command("scancel", job.id)
        run.wait_for("capture", 3)
        run.let_go("capture")
        check(run, calm)
    assert [(job.state, job.restarts) for job in run.jobs("capture")] == [("CANCELLED", "1"), ("COMPLETED", "0")]
    # Two shards had been noted, and then two more.
    assert len(first.items() & shards(world).items()) >= 2 * FILES
    assert len(second.items() & shards(world).items()) >= 4 * FILES


def test_jobs_over_their_memory_and_over_their_time_are_tried_again_with_more(
    tmp_path: Path, calm: World, cluster: Cluster
) -> None:
    world = owed(calm, tmp_path / "world", "activations", "checks")
    plan(tmp_path / "mishaps", "capture", NOTE, nth=4)
    plan(tmp_path / "mishaps", "leakage", CHECKED, megabytes=1500, seconds=5)
    asked = ["--set-resources", "capture:runtime=attempt", "check:mem_mb=attempt * 1000"]
    with at_work(cluster, world, tmp_path / "mishaps", TABLES, "checks", *asked) as run:
        run.wait_for("capture")
        kept = shards(world)
        # A minute is the least that SLURM knows of, and it looks every half minute.
        run.wait_for("capture", 2)
        run.let_go("capture")
        check(run, calm)
    first, second = run.jobs("capture")
    assert (first.state, first.minutes) == ("TIMEOUT", "00:01:00")
    (log,) = (world.folder / "logs/slurm/rule_capture").glob(f"*/{first.id}.log")
    (error,) = slurm.ended([(str(log.parent), "capture")], since=0)
    assert "took more time than it had asked for. Mend: give capture a higher runtime " in str(error)
    assert (second.state, second.minutes) == ("COMPLETED", "00:02:00")
    assert len(kept.items() & shards(world).items()) >= 3 * FILES
    first, second = run.jobs("check")
    assert (first.state, first.memory) == ("FAILED", "1000M")
    assert (second.state, second.memory) == ("COMPLETED", "2000M")
    assert report(world) == report(calm)


def report(world: World) -> bytes:
    """What the check has found."""
    return (world.folder / "results/checks/reviews.json").read_bytes()


def test_a_job_that_fails_three_times_is_named_and_the_rest_goes_on(
    tmp_path: Path, calm: World, cluster: Cluster
) -> None:
    world = owed(calm, tmp_path / "world", "checks", "probes")
    plan(tmp_path / "mishaps", "leakage", CHECKED, megabytes=2000, seconds=5)
    with at_work(
        cluster, world, tmp_path / "mishaps", TABLES, "checks", "--set-resources", "check:mem_mb=attempt * 500"
    ) as run:
        assert run.end() == 1
    jobs = run.jobs("check")
    assert [(job.state, job.memory) for job in jobs] == [("FAILED", "500M"), ("FAILED", "1000M"), ("FAILED", "1500M")]
    (line,) = [line for line in run.printed.splitlines() if "Mend: " in line]
    assert line == (
        f"logs/slurm/rule_check/reviews/{jobs[-1].id}.log: SLURM ended the job, which took more memory than it had asked for. "
        "Mend: give check a higher mem_mb under set-resources in profiles/slurm/config.yaml, then run the same command again."
    )
    assert world.table("cells.parquet") == calm.table("cells.parquet")
    assert not (world.folder / "results/checks/reviews.json").exists()


def test_jobs_go_on_while_the_controller_is_restarted(tmp_path: Path, calm: World, cluster: Cluster) -> None:
    world = owed(calm, tmp_path / "world", "activations")
    plan(tmp_path / "mishaps", "capture", NOTE, nth=4)
    with at_work(cluster, world, tmp_path / "mishaps", TABLES) as run:
        run.wait_for("capture")
        cluster.stop("controller", signal.SIGKILL)
        try:
            run.let_go("capture")
            manifest = next((world.folder / "results/activations/mine/reviews").iterdir()) / "manifest.json"
            wait_until(manifest.exists, "the end of the capture")
            # What is asked meanwhile gives up; it has ten seconds.
            time.sleep(15)
            assert run.process.poll() is None
        finally:
            cluster.start_controller()
        check(run, calm)
    (job,) = run.jobs("capture")
    assert (job.state, job.restarts) == ("COMPLETED", "0")


def test_after_a_killed_run_its_jobs_are_named_and_when_they_have_ended_the_next_goes_on(
    tmp_path: Path, calm: World, cluster: Cluster
) -> None:
    world = owed(calm, tmp_path / "world", "activations")
    plan(tmp_path / "mishaps", "capture", NOTE, nth=4)
    with at_work(cluster, world, tmp_path / "mishaps", TABLES) as run:
        left = run.wait_for("capture").id
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        for options, words in [
            ([], f"{world.folder}: it is still locked by a run that was killed. Mend: "),
            (["--unlock"], ""),
            ([], f"{world.folder}: SLURM still has 1 job of an earlier run in this folder: {left}. Mend: "),
        ]:
            with at_work(cluster, world, tmp_path / "mishaps", TABLES, *options) as next_run:
                assert next_run.end() == (1 if words else 0)
            assert words in next_run.printed
        run.let_go("capture")
        wait_until(lambda: not run.jobs("capture", *ALIVE), "the end of the job")
        done = shards(world)
        with at_work(cluster, world, tmp_path / "mishaps", TABLES) as last_run:
            check(last_run, calm)
    assert "Traceback" not in last_run.printed
    assert done == shards(world)


def test_an_interrupted_run_cancels_its_jobs_and_the_next_keeps_what_they_did(
    tmp_path: Path, calm: World, cluster: Cluster
) -> None:
    world = owed(calm, tmp_path / "world", "activations")
    plan(tmp_path / "mishaps", "capture", NOTE, nth=4)
    with at_work(cluster, world, tmp_path / "mishaps", TABLES) as run:
        run.wait_for("capture")
        with slow(cluster, "squeue"):
            # By now it waits for an answer.
            os.killpg(run.process.pid, signal.SIGINT)
            assert run.end() == 1
        wait_until(lambda: not run.jobs("capture", *ALIVE), "the end of the job")
        assert [job.state for job in run.jobs()] == ["CANCELLED"]
        kept = shards(world)
        run.let_go("capture")
        with at_work(cluster, world, tmp_path / "mishaps", TABLES) as next_run:
            check(next_run, calm)
    assert "Traceback" not in next_run.printed
    assert len(kept.items() & shards(world).items()) >= 3 * FILES


@contextmanager
def slow(cluster: Cluster, command: str) -> Iterator[None]:
    """A controller that takes its time to answer a command; it is being waited for when this begins."""
    called, wrapper = cluster.folder / "called", cluster.folder / "bin" / command
    wrapper.write_text(f'#!/bin/sh\ntouch {called}\nsleep 3\nexec {shutil.which(command)} "$@"\n')
    wrapper.chmod(0o755)
    try:
        wait_until(called.exists, command)
        yield
    finally:
        wrapper.unlink()
        called.unlink(missing_ok=True)


def test_files_that_are_seen_here_later_than_on_the_nodes_are_waited_for(
    tmp_path: Path, tiny_model: Path, calm: World, cluster: Cluster
) -> None:
    if not cluster.apart:
        pytest.skip("only root can have nodes see a folder otherwise")
    world = own_world(tmp_path / "world", tiny_model)
    (world.folder / "mine.yaml").write_text((calm.folder / "mine.yaml").read_text())
    late = seen_late(cluster, world.folder / "results", tmp_path / "server", seconds=5)
    with late, at_work(cluster, world, tmp_path / "mishaps", "checks") as run:
        assert run.end() == 0, run.printed[-4000:]
    assert run.printed.count("Waiting at most 60 seconds for missing files") >= 2
    assert [job.state for job in run.jobs()] == ["COMPLETED", "COMPLETED"]
    assert report(world) == report(calm)


@contextmanager
def seen_late(cluster: Cluster, folder: Path, server: Path, seconds: float) -> Iterator[None]:
    """What nodes write to a folder is here some seconds later."""
    ended = threading.Event()

    def copy() -> None:
        while not ended.wait(0.1):
            for path in server.rglob("[!.]*"):
                here = folder / path.relative_to(server)
                if path.is_file() and not here.exists() and time.time() - path.stat().st_mtime > seconds:
                    here.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, here.with_name(f".{here.name}"))
                    here.with_name(f".{here.name}").rename(here)

    folder.mkdir()
    server.mkdir()
    copying = threading.Thread(target=copy)
    copying.start()
    within = [["nsenter", f"--target={cluster.processes[name].pid}", "--mount"] for name in NODES]
    try:
        for node in within:
            cluster.command(*node, "mount", "--bind", str(server), str(folder))
        yield
    finally:
        for node in within:
            cluster.command(*node, "umount", str(folder))
        ended.set()
        copying.join()
