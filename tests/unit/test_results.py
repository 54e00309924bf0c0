"""What figures, findings and report must agree on: reading the tables, their order, and the choice within a part."""

from pathlib import Path

import fakes_tables
import pandas as pd
import pytest

from tessera.errors import UserError
from tessera.results import NUMBERS, chosen_within, failures, load, over_seeds


def saved(folder: Path) -> Path:
    tables = fakes_tables.world()
    for name in NUMBERS:
        getattr(tables, name).to_parquet(folder / f"{name}.parquet")
    return folder


def test_loaded_tables_are_the_saved_ones(tmp_path: Path) -> None:
    found = load(saved(tmp_path), fakes_tables.TITLES)
    for name in NUMBERS:
        pd.testing.assert_frame_equal(getattr(found, name), getattr(fakes_tables.world(), name))


def test_a_missing_table_is_the_users_to_mend(tmp_path: Path) -> None:
    (saved(tmp_path) / "arms.parquet").unlink()
    with pytest.raises(UserError, match=r"arms.parquet: there is no such table"):
        load(tmp_path, {})


def test_a_table_without_a_column_is_named_with_the_column(tmp_path: Path) -> None:
    path = saved(tmp_path) / "differences.parquet"
    pd.read_parquet(path).drop(columns="low").to_parquet(path)
    with pytest.raises(UserError, match=r"differences.parquet: the columns low are missing"):
        load(tmp_path, {})


def test_a_column_of_nothing_but_nulls_loads_as_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path) / "saes.parquet"
    pd.read_parquet(path).assign(explained_variance=None).to_parquet(path)
    assert load(tmp_path, {}).saes["explained_variance"].dtype == "float64"


def test_datasets_stand_in_the_order_of_the_config_and_then_by_name() -> None:
    titles = {"datasets": {"requests": "R", "absent": "A"}, "models": {}}
    tables = fakes_tables.world(titles=titles)
    assert tables.datasets == ["requests", "docstrings"]
    assert tables.dataset("requests") == "R"
    assert tables.dataset("docstrings") == "docstrings"
    assert tables.models == ["demo-large", "demo-small"]


def test_strict_speaks_first_and_paper_only_where_it_is_alone() -> None:
    assert fakes_tables.world().protocol == "strict"
    assert fakes_tables.world(protocols=("paper",)).protocol == "paper"


def test_the_choice_within_a_part_reads_validation_and_never_the_test_score() -> None:
    cells = fakes_tables.world().whole_cells()
    cells = cells[cells["arm"] == "sae"]
    part = ["dataset", "layer", "width"]
    found = chosen_within(cells, part).set_index([*part, "seed"])
    best: dict = {}
    for row in cells.itertuples():
        key = (row.dataset, row.layer, row.width, row.seed)
        if key not in best or row.validation > best[key].validation:
            best[key] = row
    assert len(found) == len(best) == 2 * 3 * 2 * 5
    for key, row in best.items():
        assert found.loc[key, "macro_f1"] == row.macro_f1
    unread = cells.assign(macro_f1=cells["macro_f1"].to_numpy()[::-1])
    assert (chosen_within(unread, part).index == chosen_within(cells, part).index).all()


def test_equal_validation_scores_are_settled_by_name() -> None:
    cells = fakes_tables.world().whole_cells().query("arm == 'sae'").assign(validation=0.5)
    chosen = chosen_within(cells.sample(frac=1, random_state=0), ["dataset", "model"])
    assert set(chosen["head"]) == {"demo-large-l1-1024"}
    assert set(chosen["pooling"]) == {"last"}
    assert set(chosen["threshold"]) == {1.0}


def test_failed_cells_are_never_chosen() -> None:
    tables = fakes_tables.with_failed(fakes_tables.world(), "no", pooling="top-20")
    assert "top-20" not in set(chosen_within(tables.cells, ["dataset", "model", "arm"])["pooling"])


def test_scores_over_seeds_are_mean_and_range() -> None:
    cells = pd.DataFrame({"part": ["a", "a", "b"], "macro_f1": [0.2, 0.4, 0.9]})
    found = over_seeds(cells, ["part"]).set_index("part")
    assert found.loc["a", ["macro_f1", "lowest", "highest", "n_seeds"]].to_list() == pytest.approx([0.3, 0.2, 0.4, 2])


def test_failures_count_and_keep_a_reason() -> None:
    cells = pd.DataFrame({"part": ["a", "a", "b"], "status": ["ok", "failed", "ok"], "reason": ["", "why", ""]})
    assert failures(cells, ["part"]).to_dict("records") == [{"part": "a", "failed": 1, "cells": 2, "reason": "why"}]
