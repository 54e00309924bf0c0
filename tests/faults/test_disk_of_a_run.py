"""A disk that fills up, or that nobody may write to, in any stage of a run: one line, and with room all goes on."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import FULL, PAGE, Beside, beside
from fetched import FETCHING, OFFLINE, STAGES, files, half_written, made_by, online
from hub_served import Hub
from test_killed_capture import kept
from worlds import World


@pytest.fixture(scope="module")
def undisturbed(fetched_world: World) -> dict[str, bytes]:
    return made_by(fetched_world.folder)


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Beside]:
    with beside(tmp_path) as made:
        yield made


def on_a_disk_of_its_own(world: World, name: str, apart: Beside) -> Path:
    """Move a folder of a world to a small disk; returns where it is seen."""
    folder, aside = world.folder / name, world.folder / f"{name}-aside"
    folder.rename(aside)
    folder.mkdir()
    apart.mount(folder, "size=64m")
    apart.run("cp", "-a", f"{aside}/.", str(folder))
    return apart.seen(folder)


def errors(printed: str) -> list[str]:
    return [line.split(" ERROR ")[1] for line in printed.splitlines() if " ERROR " in line]


# The script, and the share of what it makes that there is room for. A check makes a page, and without one no run begins.
ROOM = [("dataset", 0.4), ("model", 0.5), ("sae", 0.5), ("capture", 0.5), ("probe", 0.4)]
ROOM += [("probe_text", 0.4), ("transfer", 0.4), ("transfer_tables", 0.4), ("explore", 0.5), ("tables", 0.5)]
ROOM += [("figure", 0.5), ("findings", 0.5), ("report", 0.5)]


@pytest.mark.parametrize(("script", "share"), ROOM, ids=[script for script, _ in ROOM])
def test_a_full_disk_stops_a_stage_with_one_line_and_with_room_the_same_command_ends_well(
    fetched_world: World,
    study_hub: Hub,
    undisturbed: dict[str, bytes],
    apart: Beside,
    tmp_path: Path,
    script: str,
    share: float,
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    results = on_a_disk_of_its_own(world, "results", apart)
    stage = STAGES[script]
    needed = sum(-(-path.stat().st_size // PAGE) for path in stage.made_below(results))
    stage.forget(results)
    before = {path: path.read_bytes() for path in files(results) if "benchmarks" not in path.parts}
    filler = apart.fill(world.folder / "results", max(1, int(share * needed)))
    environment = online(study_hub, tmp_path / "cache") if script in FETCHING else OFFLINE
    printed = world.run(stage.target, check=False, environment=environment, within=apart.within(world.folder))
    (tmp_path / "printed.txt").write_text(printed)
    assert "Traceback" not in printed
    told = errors(printed)
    # A line for each job that finds the disk full; the others may have room.
    assert 0 < len(told) == len(set(re.findall(r"^    log: (\S+)", printed, re.MULTILINE))), printed
    for line in told:
        assert re.fullmatch(rf"(?!\.)\S+: {re.escape(FULL)}", line), line
        assert not line.split(": ")[0].endswith(".partial")
    assert not half_written(results)
    assert {path: path.read_bytes() for path in before if path.is_file()} == before
    finished = {path: at for capture in results.glob("activations/*/*/*") for path, at in kept(capture).items()}
    filler.unlink()
    world.run(stage.target, environment=environment, within=apart.within(world.folder))
    assert made_by(apart.seen(world.folder)) == undisturbed
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in files(results)}.items()


def test_a_full_disk_stops_snakemakes_own_report_with_one_line_that_mends_it(
    fetched_world: World, apart: Beside, tmp_path: Path
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    results = on_a_disk_of_its_own(world, "results", apart)
    provenance = results / "snakemake-report.html"
    provenance.unlink()
    needed = -(-(results / "report.html").stat().st_size // PAGE)
    (results / "report.html").unlink()
    filler = apart.fill(world.folder / "results", needed + 8)
    within = apart.within(world.folder)
    printed = world.run(check=False, within=within)
    assert "Traceback" not in printed
    told = [line for line in printed.splitlines() if "snakemake-report.html: " in line]
    wrong = "all else is done, and Snakemake could not write its report (OSError: [Errno 28] No space left on device)"
    assert len(told) == 1, printed
    assert told[0].startswith(f"results/snakemake-report.html: {wrong}. Mend: see to that, then run ")
    # What the run finds is said all the same.
    assert "What it finds:" in printed
    assert {path.name for path in results.iterdir() if "report" in path.name} == {"report.html"}
    filler.unlink()
    apart.run(*within[len(apart.entering) :], *shlex.split(told[0].split(", then run ")[1].removesuffix(".")))
    assert provenance.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["results", "logs", ".snakemake"])
def test_a_disk_that_is_full_from_the_start_is_one_line_before_anything_runs(
    fetched_world: World, undisturbed: dict[str, bytes], apart: Beside, tmp_path: Path, name: str
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    stage = STAGES["explore"]
    stage.forget(world.folder / "results")
    on_a_disk_of_its_own(world, name, apart)
    filler = apart.fill(world.folder / name, 0)
    within = apart.within(world.folder)
    printed = world.run(stage.target, check=False, within=within)
    assert printed.count(f"\n{name}: {FULL}") == 1, printed
    assert "Job stats" not in printed
    # Where Snakemake has its own log it has begun to complain of that itself.
    assert name == ".snakemake" or "Traceback" not in printed
    filler.unlink()
    world.run(stage.target, within=within)
    assert made_by(apart.seen(world.folder)) == undisturbed


def test_a_folder_that_is_mounted_read_only_is_one_line_before_anything_runs(
    fetched_world: World, apart: Beside, tmp_path: Path
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    folder = world.folder / "results"
    STAGES["report"].forget(folder)
    apart.run("mount", "--bind", str(folder), str(folder))
    apart.run("mount", "-o", "remount,bind,ro", str(folder))
    printed = world.run(check=False, within=apart.within(world.folder))
    mend = "mount it for writing, or work in a folder on another disk"
    assert f"\nresults: its disk is mounted read-only. Mend: {mend}." in printed
    assert "Traceback" not in printed
    assert "Job stats" not in printed
    assert not (folder / "report.html").exists()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can do without what root may do"
)
@pytest.mark.parametrize("place", ["results", "results/figures", "logs", ".snakemake"])
def test_a_folder_of_ones_own_that_is_closed_is_one_line_before_anything_runs(
    fetched_world: World, tmp_path: Path, place: str
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    STAGES["report"].forget(world.folder / "results")
    (world.folder / place).chmod(0o555)
    printed = world.run(check=False, within=("setpriv", "--bounding-set=-dac_override,-dac_read_search"))
    (world.folder / place).chmod(0o755)
    assert f"\n{place}: it is yours and you may not write to it. Mend: run chmod -R u+rwX {place}." in printed
    assert "Traceback" not in printed
    assert "Job stats" not in printed
    assert not (world.folder / "results/report.html").exists()
