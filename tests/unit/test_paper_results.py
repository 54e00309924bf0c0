"""Bars of the study's figures: the means of a plain reckoning, beside the published means of the very same cells."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import fakes_paper
import fakes_tables
import numpy as np
import pandas as pd
import pytest

from tessera import paper_results, reference, scoreboard, statistics
from tessera.figures import (
    paper_baselines,
    paper_behaviours,
    paper_differences,
    paper_images,
    paper_poolings,
    paper_scale,
)
from tessera.paper_results import Paper, averaged, best, means, with_hidden

STUDY = ("sum", "top-20")
WIDTH = 512


def demo_rows(protocol: str = "paper", **changes: Any) -> list[Any]:
    """The SAE and hidden rows of the default world, one by one."""
    cells = fakes_tables.world(**changes).cells
    cells = cells[(cells["protocol"] == protocol) & (cells["subset"] == "all") & cells["arm"].isin(["sae", "hidden"])]
    return list(cells.itertuples(index=False))


def group_of(layer: float) -> str:
    return {1: "early", 3: "middle", 5: "late"}[int(layer)]


def cut(threshold: float) -> str:
    return "raw" if np.isnan(threshold) else "binary at 1"


def authors_table(rows: list[Any]) -> list[tuple[Any, str, float]]:
    """The study's table of scores: for every SAE row its score, and beside it that of the layer's last hidden state."""
    last = {
        (r.dataset, r.model, r.layer, r.seed): r.macro_f1 for r in rows if r.arm == "hidden" and r.pooling == "last"
    }
    table = []
    for row in rows:
        if row.arm == "sae":
            table.append((row, "sae_features", row.macro_f1))
            table.append((row, "hidden_states", last[row.dataset, row.model, row.layer, row.seed]))
    return table


@pytest.mark.parametrize("version", [paper_poolings.ALONE, paper_poolings.TOGETHER])
@pytest.mark.parametrize("by", [paper_poolings.POOLING, paper_poolings.THRESHOLD])
def test_bars_of_poolings_are_the_means_of_the_rows_that_the_authors_average(by: str, version: str) -> None:
    expected: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row, kind, score in authors_table(demo_rows()):
        if (
            row.dataset != "requests"
            or row.width != WIDTH
            or (version == paper_poolings.ALONE and kind != "sae_features")
        ):
            continue
        if by == paper_poolings.POOLING:
            expected[group_of(row.layer), row.model, row.pooling].append(score)
        elif row.pooling in STUDY:
            expected[group_of(row.layer), row.model, cut(row.threshold)].append(score)
    bars = paper_poolings.data(fakes_paper.demo(), "requests", WIDTH)
    bars = bars[(bars["by"] == by) & (bars["version"] == version)]
    found = {(row.group, row.model, row.category): row.macro_f1 for row in bars.itertuples()}
    assert found == pytest.approx({key: float(np.mean(scores)) for key, scores in expected.items()})


def test_points_of_scale_are_means_over_the_study_s_settings() -> None:
    expected: dict[tuple[str, str, float, str], list[float]] = defaultdict(list)
    for row in demo_rows():
        if row.arm == "sae" and row.pooling in STUDY:
            expected[row.dataset, row.model, row.width, group_of(row.layer)].append(row.macro_f1)
    points = paper_scale.data(fakes_paper.demo())
    found = {(row.dataset, row.model, row.width, row.group): row.macro_f1 for row in points.itertuples()}
    assert found == pytest.approx({key: float(np.mean(scores)) for key, scores in expected.items()})


def test_differences_are_of_the_same_head_and_split() -> None:
    by_cell = {
        (row.dataset, row.head, row.pooling, np.isnan(row.threshold)): row.macro_f1
        for row in demo_rows()
        if row.arm == "sae"
    }
    for change, panel, one, other in (
        ("binarisation", "sum \N{GREATER-THAN OR EQUAL TO} 1", ("sum", False), ("sum", True)),
        ("top-n", "top-20", ("top-20", True), ("sum", True)),
    ):
        rows = paper_differences.data(fakes_paper.demo(), change)
        rows = rows[rows["panel"] == panel]
        heads = rows[rows["what"] == paper_differences.HEAD]
        assert len(heads) == 2 * len(fakes_tables.SAES)
        for row in heads.itertuples():
            expected = by_cell[row.dataset, row.head, *one] - by_cell[row.dataset, row.head, *other]
            assert row.difference == pytest.approx(expected)
        for row in rows[rows["what"] == paper_differences.MEAN].itertuples():
            mine = heads.loc[heads["dataset"] == row.dataset, "difference"]
            assert row.difference == pytest.approx(mine.mean())
            assert row.low < row.difference < row.high
        (overall,) = rows[rows["what"] == paper_differences.OVERALL].itertuples()
        assert overall.difference == pytest.approx(
            rows.loc[rows["what"] == paper_differences.MEAN, "difference"].mean()
        )
        assert np.isnan(overall.low), "two datasets are too few for an interval"


# --- intervals and protocols ---------------------------------------------------------------------------------------


def test_the_paper_protocol_speaks_where_it_was_run() -> None:
    assert fakes_paper.demo().protocol == "paper"
    assert fakes_paper.demo(protocols=("strict",)).protocol == "strict"


def test_on_one_split_the_interval_is_that_of_a_score_on_its_test_examples() -> None:
    points = paper_scale.data(fakes_paper.demo())
    for row in points.itertuples():
        assert (row.low, row.high) == reference.sampling_interval(row.macro_f1, 200)
        error = reference.sampling_error(row.macro_f1, 200)
        assert row.high - row.low == pytest.approx(2 * 1.96 * error)


def test_over_several_splits_the_interval_is_the_bootstrap_over_them() -> None:
    paper = fakes_paper.demo(protocols=("strict",))
    (row,) = paper_scale.data(paper).query("dataset == 'requests' and width == 512 and group == 'late'").itertuples()
    rows = demo_rows("strict", protocols=("strict",), titles=paper.titles)
    mine = [r for r in rows if (r.dataset, r.arm, r.layer, r.width) == ("requests", "sae", 5, 512)]
    by_seed = np.array([np.mean([r.macro_f1 for r in mine if r.seed == s and r.pooling in STUDY]) for s in range(5)])
    drawn = np.concatenate(list(statistics.draws(5, statistics.REPLICATES))) @ by_seed / 5
    expected = statistics.interval(float(by_seed.mean()), drawn, 5)
    assert (row.macro_f1, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert row.n_seeds == 5


@pytest.mark.parametrize(("score", "n_test"), [(1.0, 53), (0.0, 20), (0.62, 100), (0.99, 4000)])
def test_a_sampling_interval_holds_its_score_and_stays_within_what_is_possible(score: float, n_test: int) -> None:
    low, high = reference.sampling_interval(score, n_test)
    assert 0 <= low <= score <= high <= 1
    assert high > low


# --- what failed ---------------------------------------------------------------------------------------------------


def failing(**match: Any) -> Paper:
    return fakes_paper.of_tables(fakes_tables.with_failed(fakes_tables.world(), "it broke", **match))


def test_a_configuration_that_failed_on_one_split_is_in_no_mean_and_counted() -> None:
    tables = fakes_tables.with_failed(
        fakes_tables.world(protocols=("strict",)), "it broke", head="demo-large-l3-512", pooling="sum", seed=2
    )
    points = paper_scale.data(fakes_paper.of_tables(tables)).query("width == 512 and group == 'middle'")
    cells = tables.cells[(tables.cells["subset"] == "all") & (tables.cells["head"] == "demo-large-l3-512")]
    for row in points.itertuples():
        left = cells[(cells["dataset"] == row.dataset) & (cells["pooling"] == "top-20")]
        assert row.macro_f1 == pytest.approx(left["macro_f1"].mean())
        assert (row.n_configurations, row.n_failed, row.reason) == (4, 2, "it broke")


def test_a_bar_without_any_score_says_why() -> None:
    points = paper_scale.data(failing(arm="sae", dataset="requests"))
    lost = points[points["status"] == "failed"]
    assert set(lost["dataset"]) == {"requests"}
    assert lost["macro_f1"].isna().all()
    assert set(lost["reason"]) == {"it broke"}


def test_a_failed_head_has_no_difference_and_is_in_no_mean() -> None:
    rows = paper_differences.data(failing(head="demo-large-l3-512", pooling="sum", threshold=1.0), "binarisation")
    lost = rows[rows["status"] == "failed"]
    assert set(lost["head"]) == {"demo-large-l3-512"}
    assert set(lost["reason"]) == {"it broke"}
    (mean,) = rows.query("panel == 'sum \N{GREATER-THAN OR EQUAL TO} 1' and dataset == 'requests' and what == 'mean over heads'").itertuples()  # fmt: skip
    assert mean.n == len(fakes_tables.SAES) - 1


# --- groups of layers ----------------------------------------------------------------------------------------------


def test_layers_are_grouped_as_published_or_by_thirds() -> None:
    paper = fakes_paper.study()
    assert {layer: paper.groups["gemma-2-9b", layer] for layer in (9.0, 20.0, 31.0)} == {
        9: "early",
        20: "middle",
        31: "late",
    }
    assert paper.groups["gemma-2-2b", 19.0] == "late"
    assert reference.layer_groups([3, 1, 5, 7], published=False) == {1: "early", 3: "middle", 5: "middle", 7: "late"}
    assert reference.layer_groups([4, 8], published=False) == {}
    assert reference.layer_groups([20], published=True) == {20: "middle"}


def test_layers_that_only_transfers_read_count_as_well() -> None:
    paper = fakes_paper.demo()
    assert paper.layers["demo-vision"] == [1, 3, 5]
    assert paper.groups["demo-vision", 3] == "middle"


# --- the published numbers -----------------------------------------------------------------------------------------


def check_identity(bars: pd.DataFrame, column: str = "macro_f1") -> None:
    assert len(bars)
    assert bars["published"].notna().all()
    assert bars["published"].to_numpy() == pytest.approx(bars[column].to_numpy())


def test_the_published_numbers_as_a_runs_own_have_a_marker_at_every_bar() -> None:
    paper = fakes_paper.reproduction()
    for dataset, width in (("willcb/massive-intent/train", 16384), ("SetFit/tweet_eval_stance_abortion/train", 65536)):
        bars = paper_poolings.data(paper, dataset, width)
        # The authors' best of each dataset, which stand in as a model, are no cells.
        check_identity(bars[bars["model"] != "any"])
    for points in (paper_scale.data(paper), paper_behaviours.data(paper)):
        check_identity(points[points["model"] != "any"])
    images = paper_images.data(paper, "renumics/cifar100-enriched/test")
    check_identity(images[images["what"] == paper_images.SETTING])
    heads = paper_differences.data(paper, "binarisation").query("what == 'head' and model != 'any'")
    check_identity(heads, "difference")


def test_the_best_of_each_dataset_is_the_published_best() -> None:
    bars = paper_baselines.data(fakes_paper.reproduction())
    there = bars[bars["published"].notna()]
    assert len(there) == 2 * len(pd.read_csv(fakes_paper.ROOT / "resources/reference/best_per_dataset.csv"))
    found = there.set_index(["dataset", "kind"])["published"]
    known = fakes_paper.KNOWN.best
    for row in known.itertuples():
        kind = {"sae": "sae", "hidden": "hidden-last"}[row.arm]
        assert found[f"{row.dataset}/{row.part}", kind] == row.published
    # A single score that was published beats the table of best ones nowhere by more than rounding.
    alone = there[~there["dataset"].str.contains("multilingual")]
    assert (alone["macro_f1"] >= alone["published"] - 1e-5).all()


def test_a_bar_is_published_only_if_all_it_averages_is() -> None:
    paper = fakes_paper.reproduction()
    one = (paper.rows["dataset"] == "willcb/massive-intent/train") & (paper.rows["pooling"] == "top-50")
    gone = paper.rows[one & (paper.rows["layer"] == 12) & paper.rows["threshold"].isna()].iloc[0]
    same = (paper.board["our_head"] == gone["head"]) & (paper.board["our_dataset"] == gone["dataset"])
    same &= (paper.board["pooling"] == gone["pooling"]) & paper.board["threshold"].isna()
    assert same.sum() == 1
    less = replace(paper, board=paper.board[~same])
    before, after = (paper_scale.data(each).set_index(paper_scale.PART) for each in (paper, less))
    lost = before["published"].notna() & after["published"].isna()
    assert list(lost[lost].index) == [("willcb/massive-intent/train", "google/gemma-2-2b", 16384.0, "middle")]


def test_a_run_on_other_data_has_no_marker() -> None:
    paper = fakes_paper.demo()
    assert paper.rows["published"].isna().all()
    assert paper.best() == {}
    assert paper_baselines.data(paper)["published"].isna().all()


def test_a_sample_of_the_data_has_no_published_best() -> None:
    paper = fakes_paper.reproduction()
    small = paper.cells.assign(n_test=paper.cells["n_test"] / 4)
    run = scoreboard.Run(small, None, paper.run.sources, sorted(paper.run.images))
    assert ("willcb/massive-intent/train", "sae") in paper.best()
    assert ("willcb/massive-intent/train", "sae") not in replace(paper, cells=small, run=run).best()


def test_the_authors_lines_of_the_vision_tower_are_those_of_the_facts() -> None:
    facts = pd.read_csv(fakes_paper.ROOT / "resources/reference/protocol_facts.csv").set_index("item")["value"]
    lines = facts["vision tower baselines (hard-coded lines)"]
    named = {"oxford-flowers": "oxford", "indian_food": "indian", "cifar100": "cifar100"}
    told = dict(part.strip().split(" ") for part in lines.split(";"))
    towers = fakes_paper.KNOWN.towers
    assert len(towers) == len(told)
    for name, value in told.items():
        (hub,) = [hub for hub in towers if named[name] in hub]
        assert towers[hub] == float(value)
    paper = fakes_paper.study()
    assert (paper.tower("cifar100"), paper.tower("indian-food-test"), paper.tower("tiny-imagenet")) == (
        0.79,
        0.98,
        None,
    )


# --- parts ---------------------------------------------------------------------------------------------------------


def test_rows_without_a_hidden_state_beside_them_are_left_out() -> None:
    rows = fakes_paper.demo().rows
    sae = rows[rows["arm"] == "sae"]
    hidden = rows[(rows["arm"] == "hidden") & (rows["layer"] != 3)]
    both = with_hidden(sae, hidden)
    assert set(both["layer"]) == {1, 5}
    assert (both["arm"] == "hidden").sum() == (both["arm"] == "sae").sum() == (sae["layer"] != 3).sum()
    assert with_hidden(sae, hidden[hidden["pooling"] != "last"]).empty


def test_of_a_pair_that_lost_one_nothing_is_averaged() -> None:
    """A bar of SAE features and hidden states is never one of hidden states alone, nor the other way round."""
    for match in ({"head": "demo-large-l3-512", "pooling": "sum"}, {"head": "layer-3"}):
        rows = failing(**match).rows
        sae = rows[(rows["arm"] == "sae") & (rows["width"] == WIDTH) & (rows["layer"] == 3)]
        bars = means(with_hidden(sae, rows), ["dataset", "pooling"], "paper").set_index(["dataset", "pooling"])
        for row in bars.itertuples():
            lost = match["head"] == "layer-3" or row.Index[1] == "sum"
            assert row.status == ("failed" if lost else "ok")
            assert row.reason == ("it broke" if lost else "")


def test_means_are_over_the_study_s_poolings_or_all_where_there_are_none() -> None:
    rows = fakes_paper.demo().rows
    rows = rows[rows["arm"] == "sae"]
    assert set(averaged(rows)["pooling"]) == set(STUDY)
    last = rows[rows["pooling"] == "last"]
    assert len(averaged(last)) == len(last)


def test_the_best_is_picked_by_the_test_score_or_for_each_split_by_validation() -> None:
    rows = fakes_paper.demo().rows
    rows = rows[rows["arm"] == "sae"]
    found = best(rows, ["dataset"], "paper").set_index("dataset")["macro_f1"]
    assert found.to_dict() == rows.groupby("dataset")["macro_f1"].max().to_dict()
    strict = fakes_paper.demo(protocols=("strict",)).rows
    strict = strict[strict["arm"] == "sae"]
    for row in best(strict, ["dataset"], "strict").itertuples():
        here = strict[strict["dataset"] == row.dataset]
        picked = [of_seed.nlargest(1, "validation")["macro_f1"].item() for _, of_seed in here.groupby("seed")]
        assert row.macro_f1 == pytest.approx(np.mean(picked))


def test_models_without_saes_do_not_compete_in_the_best_of_each() -> None:
    tables = fakes_tables.world()
    lifted = tables.cells["macro_f1"].where(tables.cells["model"] != "demo-small", 0.999)
    bars = paper_baselines.data(fakes_paper.of_tables(replace(tables, cells=tables.cells.assign(macro_f1=lifted))))
    assert bars["macro_f1"].max() < 0.999
    alone = fakes_paper.of_tables(fakes_tables.world(saes={}))
    assert "hidden" in set(paper_baselines.data(alone)["kind"])


def test_behaviours_and_images_are_no_texts() -> None:
    paper = fakes_paper.study()
    assert "piqa-2b" in paper.behaviours
    assert set(paper.pictures) == {
        "cifar100",
        "indian-food-train",
        "indian-food-test",
        "oxford-flowers",
        "tiny-imagenet",
    }
    assert len(paper.texts) + len(paper.behaviours) + len(paper.pictures) == len(paper.datasets)


def test_what_only_a_transfer_predicts_is_drawn_from_it_and_marked() -> None:
    points = paper_behaviours.data(fakes_paper.demo())
    assert set(points["origin"]) == {paper_behaviours.TRANSFER}
    moved = fakes_paper.demo().moved("model")
    moved = moved[(moved["arm"] == "sae") & moved["head"].notna() & (moved["model"] != "demo-small")]
    assert sorted(points["macro_f1"]) == pytest.approx(sorted(moved["macro_f1"]))
    images = paper_images.data(fakes_paper.demo(), "digits")
    assert set(images["what"]) == {paper_images.SETTING, paper_images.TOWER, paper_images.HIDDEN}
    assert set(images.loc[images["what"] == paper_images.SETTING, "pooling"]) == {paper_images.CHOSEN}


def test_the_tables_of_a_run_are_read_back(tmp_path: Any) -> None:
    paper = fakes_paper.reproduction()
    paper.cells.to_parquet(tmp_path / "cells.parquet")
    paper.board.to_parquet(tmp_path / "scoreboard.parquet")
    images = sorted(paper.run.images)
    read = paper_results.load(
        tmp_path, {}, sources=paper.run.sources, images=images, image_transfers={}, published=fakes_paper.ROOT / "resources/reference"
    )  # fmt: skip
    pd.testing.assert_frame_equal(paper_scale.data(read), paper_scale.data(paper))


def test_no_rows_make_no_bars() -> None:
    rows = fakes_paper.demo().rows
    assert means(rows[:0], ["dataset"], "paper").empty
