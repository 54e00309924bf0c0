"""A disk that fills up, or that nobody may write to, in any stage of a run: one line, and with room all goes on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import FULL, PAGE, Beside, beside
from fetched import FETCHING, OFFLINE, STAGES, files, half_written, made_by, online
from hub_served import Hub
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


# The script, and the share of what it makes that there is room for.
ROOM = [("dataset", 0.4), ("model", 0.5), ("sae", 0.5), ("capture", 0.5), ("probe", 0.4), ("transfer", 0.4)]
ROOM += [("explore", 0.5), ("tables", 0.5), ("figure", 0.5), ("report", 0.5)]


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
    before = {path: path.read_bytes() for path in files(results)}
    filler = apart.fill(world.folder / "results", int(share * needed))
    environment = online(study_hub, tmp_path / "cache") if script in FETCHING else OFFLINE
    printed = world.run(stage.target, check=False, environment=environment, within=apart.within(world.folder))
    (tmp_path / "printed.txt").write_text(printed)
    assert "Traceback" not in printed
    told = errors(printed)
    assert told, printed
    # Two jobs that run at once may both find the disk full.
    assert len(told) <= 2
    for line in told:
        assert re.fullmatch(rf"(?!\.)\S+: {re.escape(FULL)}", line), line
        assert not line.split(": ")[0].endswith(".partial")
    assert not half_written(results)
    assert {path: path.read_bytes() for path in before if path.is_file()} == before
    finished = {path: path.stat().st_mtime_ns for path in files(results) if path.name.startswith("part-")}
    filler.unlink()
    world.run(stage.target, environment=environment, within=apart.within(world.folder))
    assert made_by(apart.seen(world.folder)) == undisturbed
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in files(results)}.items()
