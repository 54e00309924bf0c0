"""A user's own CSV, own model folder and own SAE folders, through the whole workflow with no code written."""

import json
from pathlib import Path

import pandas as pd
import pytest
from worlds import World, own_config, own_world


def test_the_report_the_tables_and_the_figures_are_there(finished_world: World) -> None:
    results = finished_world.folder / "results"
    page = (results / "report.html").read_text()
    assert "mine-l3" in page
    assert 'id="explore.mine.reviews"' in page
    assert "Time and memory by stage" in page
    assert (results / "snakemake-report.html").stat().st_size > 10_000
    for name in ("arms", "layers", "poolings", "curves", "saes"):
        for ending in ("svg", "pdf", "png", "csv"):
            assert (results / f"figures/{name}.{ending}").stat().st_size > 100
    assert len(json.loads((results / "findings.json").read_text())) == 3


def test_every_cell_of_the_config_is_in_the_table(finished_world: World) -> None:
    cells = pd.read_parquet(finished_world.folder / "results/tables/cells.parquet")
    assert set(cells.status) == {"ok"}
    whole = cells[(cells.subset == "all") & (cells.protocol == "strict") & (cells.seed == cells.seed.min())]
    # Two SAEs x two poolings x two thresholds, one layer x two poolings, two arms on text.
    assert len(whole[(whole.regime == "full") & whole.k.isna()]) == 8 + 2 + 2
    # The best four features, or components, of each of those on heads without a threshold.
    assert len(whole[whole.k == 4]) == 4 + 2
    # With labels shuffled, those without a threshold again, and TF-IDF.
    assert len(whole[whole.regime == "shuffled"]) == 4 + 2 + 1
    assert set(cells.subset) == {"all", "north", "south"}


def test_topics_that_words_tell_apart_are_told_apart(finished_world: World) -> None:
    arms = pd.read_parquet(finished_world.folder / "results/tables/arms.parquet")
    strict = arms[(arms.protocol == "strict") & (arms.subset == "all")].set_index("arm").macro_f1
    assert strict["tfidf"] > 0.7
    assert strict["majority"] < 0.3


def test_a_run_ends_by_naming_the_report_and_three_findings(finished_world: World) -> None:
    printed = (finished_world.folder / "printed.txt").read_text()
    assert "results/report.html" in printed
    for number in ("1. ", "2. ", "3. "):
        assert f"\n{number}" in printed


def test_the_same_inputs_give_the_same_tables(finished_world: World, tmp_path: Path, tiny_model: Path) -> None:
    again = own_world(tmp_path / "again", tiny_model)
    again.run(config=own_config())
    for name in ("cells.parquet", "arms.parquet", "differences.parquet", "saes.parquet", "arms.csv"):
        assert again.table(name) == finished_world.table(name), name


def test_a_changed_row_is_taken_in_and_then_nothing_is_left_to_do(finished_world: World, tmp_path: Path) -> None:
    world = finished_world.copy(tmp_path / "changed")
    path = world.folder / "data/reviews.csv"
    path.write_text(path.read_text() + "a boat on the old quay,harbour,north\n")
    sae = (world.folder / "results/saes/mine-l1/revision.json").stat().st_mtime_ns
    world.run()
    cells = pd.read_parquet(world.folder / "results/tables/cells.parquet")
    assert set(cells[cells.subset == "all"].n_train + cells[cells.subset == "all"].n_test) == {91}
    assert (world.folder / "results/saes/mine-l1/revision.json").stat().st_mtime_ns == sae
    assert not world.planned()


def test_a_column_that_is_not_there_is_one_line_with_the_mend(tmp_path: Path, tiny_model: Path) -> None:
    config = own_config()
    config["datasets"]["reviews"]["label"] = "stars"
    printed = own_world(tmp_path / "world", tiny_model).run("datasets", config=config, check=False)
    assert "datasets.reviews.label" in printed
    assert "there is no column 'stars'. Mend: name one of the columns 'review', 'topic', 'part'." in printed
    assert "Traceback" not in printed


def test_an_sae_of_another_width_is_one_line_with_the_mend(tmp_path: Path, tiny_model: Path) -> None:
    config = own_config()
    config["saes"]["mine-l1"]["width"] = 100
    printed = own_world(tmp_path / "world", tiny_model).run(
        "results/saes/mine-l1/revision.json", config=config, check=False
    )
    assert "saes.mine-l1.width: the SAE has 96 features, not 100. Mend: correct the width." in printed
    assert "Traceback" not in printed


def test_the_best_probe_is_laid_out_as_the_tables_have_it(finished_world: World) -> None:
    results = finished_world.folder / "results"
    found = json.loads((results / "explorer/mine/reviews.json").read_text())
    assert found["failed"] is None
    assert found["task"]["labels"] == ["garden", "harbour", "kitchen"]
    arms = pd.read_parquet(results / "tables/arms.parquet").query("protocol == 'strict' and subset == 'all'")
    row = arms[arms.arm == "sae"].iloc[0]
    assert found["probe"]["macro_f1"] == pytest.approx(row.macro_f1, rel=1e-3)
    chosen = json.loads(row.chosen)["0"]
    assert {name: found["probe"][name] for name in ("head", "pooling", "threshold")}.items() <= chosen.items()
    assert len(found["features"]) > 20
    assert {"sae", "hidden", "tfidf"} == set(found["predictions"][0]["verdicts"])
