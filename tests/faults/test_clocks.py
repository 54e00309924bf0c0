"""A clock that jumps: what is of the future or of the past is neither made again for that, nor left as it was."""

import os
from collections import Counter
from pathlib import Path

import pytest
from fetched import files
from worlds import World, own_config

HOURS = 3600
JUMPS = {"the-future": 9, "the-past": -9}


def set_back(paths: list[Path], hours: float) -> None:
    """Make files as old as if the clock had been wrong by some hours when they were written."""
    for path in paths:
        at = path.stat().st_mtime + hours * HOURS
        os.utime(path, (at, at))


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("of", ["data", "results/datasets", "results/activations", "results/probes", "results"])
def test_files_of_another_time_make_nothing_run_again(
    finished_world: World, tmp_path: Path, of: str, jump: str
) -> None:
    world = finished_world.copy(tmp_path / "world")
    set_back(list(files(world.folder / of)), JUMPS[jump])
    assert world.planned() == Counter()


def test_what_changed_under_a_clock_that_was_set_back_is_taken_in(finished_world: World, tmp_path: Path) -> None:
    changed = finished_world.copy(tmp_path / "now")
    past = finished_world.copy(tmp_path / "then")
    for world in (changed, past):
        path = world.folder / "data/reviews.csv"
        path.write_text(path.read_text().replace("soil", "mud", 1))
    set_back([past.folder / "data/reviews.csv"], -99)
    assert past.planned() == changed.planned() != Counter()
    settings = own_config()
    settings["probes"]["strict"]["seeds"] = 3
    set_back(list(files(past.folder / "results")), 99)
    assert past.planned(settings)["probe"] == 3


def test_snakemakes_report_is_of_the_run_whose_page_stands_beside_it(finished_world: World, tmp_path: Path) -> None:
    world = finished_world.copy(tmp_path / "world")
    provenance = world.folder / "results/snakemake-report.html"
    # It was written at noon, and then the clock was set back to the morning.
    set_back([provenance], 9)
    before = provenance.read_bytes()
    config = own_config()
    config["datasets"]["reviews"]["title"] = "Reviews of the other kind"
    world.run(config=config)
    assert provenance.read_bytes() != before
