"""The published scores on the report page: every verdict in words, and on a toy the reason why nothing compares."""

from pathlib import Path
from typing import Any

import fakes_tables
import numpy as np
import pandas as pd
import pytest
from test_report import Reader, page_of
from test_scoreboard import FOLDER, OURS, SOURCES

from tessera import scoreboard
from tessera.report import scoreboard as sections


def board_of(folder: Path, cells: pd.DataFrame, sources: dict[str, Any]) -> sections.Board:
    folder.mkdir()
    cells.to_parquet(folder / "cells.parquet")
    scoreboard.write(
        cells=folder / "cells.parquet", transfers=None, published=FOLDER, sources=sources, images=[], output=folder
    )
    return sections.load(folder)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> sections.Board:
    return board_of(tmp_path_factory.mktemp("board") / "same", OURS, SOURCES)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> sections.Board:
    tables = fakes_tables.world()
    sources = {
        "datasets": {name: {"demo": name} for name in tables.datasets},
        "models": {name: {"demo": name} for name in tables.models},
    }
    return board_of(tmp_path_factory.mktemp("board") / "toy", tables.cells, sources)


def test_the_counts_of_an_experiment_add_up(same: sections.Board) -> None:
    for row in sections.overview(same):
        if row["experiment"] == sections.EXPERIMENTS["early_pipeline_nov2024"]:
            assert row["comparable"] == "0"
            assert "does not say how tokens were pooled" in row["why_not"]
        else:
            assert row["cells"] == row["comparable"] == row["matches"]
            assert row["difference"] == "0.000"
            assert row["why_not"] == ""
    assert sections.outside(same) == []


def test_cells_that_differ_are_listed_the_largest_first(tmp_path: Path) -> None:
    lift = np.where(OURS["dataset"] == "willcb/massive-intent/train", -0.3, 0.0)
    lift += np.where(OURS["dataset"] == "rajistics/indian_food_images/train", -0.4, 0.0)
    moved = OURS.assign(macro_f1=OURS["macro_f1"] + lift)
    board = board_of(tmp_path / "moved", moved, SOURCES)
    rows = sections.outside(board)
    assert [row["difference"] for row in rows[:1]] == ["\N{MINUS SIGN}0.400"]
    sizes = [float(row["difference"][1:]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert len(rows) <= sections.SHOWN <= sections.n_outside(board) or len(rows) == sections.n_outside(board)
    assert any(row["input"].startswith("SAE features, layer ") and row["input"].endswith("raw") for row in rows)


def test_each_finding_has_its_verdicts_side_by_side(same: sections.Board) -> None:
    rows = sections.claims(same)
    assert len(rows) == 6
    for row in rows:
        assert [cell["verdict"] for cell in row["verdicts"]] == ["holds", "holds", "cannot be told"]
        for part in row["parts"]:
            published, ours, strict = part["verdicts"]
            assert published == ours
            assert strict["reason"] == "the run has no cells under strict"


def test_the_page_shows_the_scoreboard_of_a_reproduction(same: sections.Board) -> None:
    page = Reader(page_of(fakes_tables.world(), board=same))
    assert "Beside the published scores" in page.text
    assert "Binarising helps full summed features on text" in page.text


def test_the_page_of_a_toy_says_why_nothing_compares(toy: sections.Board) -> None:
    page = Reader(page_of(fakes_tables.world(), board=toy))
    assert "no dataset of the run is " in page.text
    assert sections.outside(toy) == []
    assert {row["comparable"] for row in sections.overview(toy)} == {"0"}


def test_the_page_without_a_scoreboard_has_no_such_section() -> None:
    assert "Beside the published scores" not in Reader(page_of(fakes_tables.world())).text
