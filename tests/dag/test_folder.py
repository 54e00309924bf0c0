"""Two runs in one folder, a run after a killed one, and a folder of someone else's: one line says what to do."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from worlds import ROOT, World, own_config, own_world, write_reviews

COMMAND = [sys.executable, "-m", "snakemake", "checks", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
COMMAND += ["--configfile", "mine.yaml"]
# What root may do because it is root, so that without it root is one user among others.
ALMIGHTY = "-dac_override,-dac_read_search,-fowner,-chown"
SOMEONE = 54321


def slow_config() -> dict[str, Any]:
    """A check that takes long, because it looks at shortcuts in a hundred splits."""
    config = own_config()
    config["probes"]["strict"]["seeds"] = 100
    return config


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path) -> World:
    made = own_world(tmp_path / "world", tiny_model)
    write_reviews(made.folder / "data/reviews.csv", 2000)
    (made.folder / "mine.yaml").write_text(yaml.safe_dump(slow_config()))
    return made


@contextmanager
def at_work(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has begun its first job, in a session of its own."""
    with (world.folder / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(COMMAND, cwd=world.folder, stdout=printed, stderr=printed, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not list((world.folder / ".snakemake").glob("runs/*")):
            assert time.monotonic() < end
            assert process.poll() is None, (world.folder / "printed.txt").read_text()
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_line(printed: str) -> str:
    return printed.strip().splitlines()[-1]


def test_a_second_run_is_told_of_the_first_and_does_it_no_harm(world: World) -> None:
    with at_work(world) as first:
        printed = world.run("checks", check=False)
        assert first.poll() is None
        assert last_line(printed).startswith(f"{world.folder}: another run is at work in it, process {first.pid} on ")
        assert last_line(printed).endswith(". Mend: wait for its end, or end it with Ctrl-C.")
        assert "Traceback" not in printed
        # What touches other files is none of its business.
        world.run("plan")
        assert first.wait(timeout=300) == 0
    assert not list((world.folder / ".snakemake/runs").iterdir())
    assert not world.run("checks", "--dry-run", "--quiet").strip().endswith("--unlock, and then once more without it.")


def test_after_a_killed_run_one_line_says_how_to_go_on_and_that_works(world: World) -> None:
    with at_work(world) as first:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    printed = world.run("checks", check=False)
    unlock = "Mend: run the same command with --unlock, and then once more without it."
    assert last_line(printed) == f"{world.folder}: it is still locked by a run that was killed. {unlock}"
    world.run("checks", "--unlock")
    world.run("checks")
    assert (world.folder / "results/checks/reviews.json").is_file()
    assert not list((world.folder / ".snakemake/runs").iterdir())


def test_a_run_of_another_machine_is_named(world: World) -> None:
    with at_work(world) as first:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    (here,) = (world.folder / ".snakemake/runs").iterdir()
    here.rename(here.with_name(f"login-2.{first.pid}"))
    told = last_line(world.run("checks", check=False))
    assert f"it is locked by a run on another machine, process {first.pid} on login-2, started by " in told
    assert "run the same command with --unlock" in told


def run_as_someone_else(world: World, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", f"--bounding-set={ALMIGHTY}", *COMMAND, *options]
    return subprocess.run(command, cwd=world.folder, capture_output=True, text=True, check=False)


PLAYS = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can play another user")


@PLAYS
def test_a_folder_of_another_user_is_one_line_before_anything_runs(world: World) -> None:
    (world.folder / "results/datasets").mkdir(parents=True)
    for place, options in (("results/datasets", []), ("results", []), (".snakemake", ["--dry-run"]), (".", [])):
        folder = world.folder / place
        folder.mkdir(exist_ok=True)
        os.chown(folder, SOMEONE, SOMEONE)
        folder.chmod(0o755)
        done = run_as_someone_else(world, *options)
        printed = done.stdout + done.stderr
        assert done.returncode == 1
        assert "Traceback" not in printed
        assert f"\n{place}: it belongs to user {SOMEONE} and you may not write to it. Mend: " in printed
        os.chown(folder, os.geteuid(), os.getegid())


@PLAYS
def test_two_users_of_a_group_share_a_folder_if_both_let_the_group_write(world: World) -> None:
    umask = os.umask(0o002)
    try:
        world.run("datasets")
        for path in [world.folder, *world.folder.rglob("*")]:
            os.chown(path, SOMEONE, os.getegid())
        # This process is in the group that the files are of, and they are someone else's.
        done = run_as_someone_else(world)
        assert done.returncode == 0, done.stderr
    finally:
        os.umask(umask)
    made = world.folder / "results/checks/reviews.json"
    assert made.stat().st_uid == os.geteuid()
    assert made.stat().st_mode & 0o777 == 0o664
