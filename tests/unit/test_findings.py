"""Findings: always three, never more than the interval says, and numbers that a reader could recompute."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes_tables
import numpy as np
import pandas as pd
import pytest

from tessera import closing, findings
from tessera.results import NUMBERS, Tables


def with_differences(*rows: tuple[str, float, float, float], tables: Tables | None = None) -> Tables:
    """The default world, where the strict differences of demo-large on docstrings are these and no others are there."""
    tables = tables or fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [1, 3, 5]})
    kept = tables.differences[tables.differences["protocol"] == "paper"]
    given = pd.DataFrame(
        [("strict", "docstrings", "demo-large", "sae", arm, gap, low, high, 5) for arm, gap, low, high in rows],
        columns=kept.columns,
    )
    return replace(tables, differences=pd.concat([kept, given]))


def first(tables: Tables) -> dict[str, Any]:
    return findings.derive(tables)[0]


def test_any_world_has_three_findings_of_a_few_sentences_that_survive_json() -> None:
    worlds = [
        fakes_tables.world(),
        fakes_tables.world(saes={}),
        fakes_tables.world(models={}, saes={}),
        fakes_tables.world(protocols=("paper",)),
        fakes_tables.world(protocols=("strict",)),
        fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [3]}, {}),
        fakes_tables.with_failed(fakes_tables.world(), "no", arm="sae"),
        fakes_tables.with_failed(fakes_tables.world(), "no", status="ok"),
    ]
    for tables in worlds:
        found = findings.derive(tables)
        assert len(found) == 3
        for finding in found:
            assert set(finding) == {"title", "sentence", "points", "numbers"}
            assert finding["title"].strip()
            assert finding["sentence"].endswith(".")
            assert "nan" not in " ".join([finding["sentence"], *finding["points"]])
            json.dumps(finding, allow_nan=False)


# --- the first: SAE features against the plain baselines -------------------------------------------------------------


def test_a_win_needs_both_intervals_above_zero() -> None:
    finding = first(with_differences(("hidden", 0.05, 0.02, 0.08), ("tfidf", 0.09, 0.05, 0.12)))
    assert finding["title"] == "SAE features beat the best plain baseline"
    assert "beat hidden states by 0.050 macro-F1 (95 % interval +0.020 to +0.080)" in finding["sentence"]
    assert finding["numbers"]["comparisons"][0]["verdict"] == "wins"


def test_a_lead_whose_interval_holds_zero_is_no_win() -> None:
    finding = first(with_differences(("hidden", 0.05, -0.001, 0.08), ("tfidf", 0.09, 0.05, 0.12)))
    assert finding["title"] == "Whether SAE features beat the best plain baseline cannot be told here"
    assert "cannot be told apart (+0.050 macro-F1" in finding["sentence"]


def test_a_win_over_the_nearest_baseline_alone_is_no_win() -> None:
    finding = first(with_differences(("hidden", 0.05, 0.02, 0.08), ("tfidf", 0.06, -0.01, 0.13)))
    assert finding["numbers"]["comparisons"][0]["verdict"] == "cannot be told"


def test_a_win_needs_a_difference_with_every_baseline_that_was_run() -> None:
    finding = first(with_differences(("hidden", 0.05, 0.02, 0.08)))
    assert finding["numbers"]["comparisons"][0]["verdict"] == "cannot be told"
    assert "there is no paired difference with TF-IDF" in finding["sentence"]


def test_losing_to_one_baseline_is_a_loss_that_names_it() -> None:
    finding = first(with_differences(("hidden", -0.05, -0.11, 0.01), ("tfidf", -0.04, -0.06, -0.02)))
    assert finding["title"] == "SAE features lose to the best plain baseline"
    assert "lose to TF-IDF by 0.040 macro-F1" in finding["sentence"]


def test_a_baseline_that_failed_cannot_be_beaten() -> None:
    tables = fakes_tables.with_failed(
        fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [1, 3, 5]}), "it broke", arm="tfidf"
    )
    finding = first(with_differences(("hidden", 0.05, 0.02, 0.08), tables=tables))
    assert finding["numbers"]["comparisons"][0]["verdict"] == "cannot be told"
    assert "TF-IDF failed (it broke)" in finding["sentence"]


def test_a_loss_stands_though_another_baseline_failed() -> None:
    tables = fakes_tables.with_failed(
        fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [1, 3, 5]}), "it broke", arm="tfidf"
    )
    finding = first(with_differences(("hidden", -0.05, -0.08, -0.02), tables=tables))
    assert finding["numbers"]["comparisons"][0]["verdict"] == "loses"


def test_an_sae_arm_that_failed_is_told_with_its_reason() -> None:
    finding = first(fakes_tables.with_failed(fakes_tables.world(), "it broke", arm="sae"))
    assert finding["sentence"].count("SAE features failed (it broke)") == 2


def test_many_comparisons_are_counted_and_their_range_is_given() -> None:
    tables = fakes_tables.world({f"d{i}": ["all"] for i in range(6)}, {"demo-large": [1]})
    finding = first(tables)
    gaps = tables.differences.query("protocol == 'strict' and arm_a == 'sae' and arm_b in ('hidden', 'tfidf')")
    worst = gaps.loc[gaps.groupby("dataset")["difference"].idxmin()]
    losses, wins = int((worst["high"] < 0).sum()), int((worst["low"] > 0).sum())
    counts = finding["numbers"]["counts"]
    assert counts == {"wins": wins, "loses": losses, "cannot be told": 6 - wins - losses}
    assert finding["sentence"].startswith("Over 6 pairs of dataset and model")
    assert findings.signed(worst["difference"].min()) in finding["sentence"]
    assert findings.signed(worst["difference"].max()) in finding["sentence"]


@pytest.mark.parametrize(
    ("world", "why"),
    [
        (lambda: fakes_tables.world(saes={}), "the config names no SAE"),
        (lambda: fakes_tables.world(protocols=("paper",)), "the strict protocol was not run"),
    ],
)
def test_what_cannot_be_told_says_why(world: Any, why: str) -> None:
    assert why in first(world())["sentence"]


# --- the second: pooling, threshold, layer ---------------------------------------------------------------------------


def test_the_effect_of_pooling_is_the_gap_between_means_over_the_same_cells() -> None:
    tables = fakes_tables.world()
    cells = tables.cells.query("protocol == 'strict' and subset == 'all' and arm == 'sae'")
    means = cells.groupby("pooling")["macro_f1"].mean()
    found = findings.derive(tables)[1]
    effect = found["numbers"]["effects"]["sae"]["pooling"]
    assert effect["means"] == pytest.approx(means.to_dict())
    assert effect["spread"] == pytest.approx(means.max() - means.min())
    assert f"pooling moves macro-F1 by {means.max() - means.min():.3f}" in found["title"]
    assert f"SAE features: pooling {means.min():.3f} (last) to {means.max():.3f} (top-20)" in found["points"][0]


def test_a_failed_cell_takes_its_whole_situation_out_of_the_comparison() -> None:
    tables = fakes_tables.with_failed(fakes_tables.world(), "no", head="demo-large-l3-512", pooling="top-20")
    cells = tables.cells.query(
        "protocol == 'strict' and subset == 'all' and arm == 'sae' and head != 'demo-large-l3-512'"
    )
    effect = findings.derive(tables)[1]["numbers"]["effects"]["sae"]["pooling"]
    assert effect["means"] == pytest.approx(cells.groupby("pooling")["macro_f1"].mean().to_dict())
    assert effect["compared"] == len(cells) / 3


def test_thresholds_and_layers_are_compared_too() -> None:
    effects = findings.derive(fakes_tables.world())[1]["numbers"]["effects"]
    assert set(effects["sae"]["threshold"]["means"]) == {"values kept", "binary at 1"}
    assert effects["sae"]["layer"]["best"] == "deepest"
    assert effects["sae"]["layer"]["worst"] == "shallowest"
    assert set(effects["hidden"]) == {"pooling", "layer"}


def test_a_run_without_a_choice_has_nothing_to_compare() -> None:
    tables = fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [3]}, {})
    cells = tables.cells[tables.cells["pooling"].isna() | (tables.cells["pooling"] == "last")]
    found = findings.derive(replace(tables, cells=cells))[1]
    assert "nothing can be compared" in found["sentence"]


# --- the third: the paper's protocol ---------------------------------------------------------------------------------


def test_the_gap_is_paper_less_strict_over_datasets_and_models() -> None:
    tables = fakes_tables.world()
    score = tables.arms.query("arm == 'sae' and subset == 'all'").set_index(["protocol", "dataset", "model"])[
        "macro_f1"
    ]
    gap = float(np.mean(score["paper"] - score["strict"]))
    found = findings.derive(tables)[2]
    assert found["title"] == f"The paper's protocol scores SAE features {gap:.3f} macro-F1 higher than the strict one"
    last = tables.arms.query("protocol == 'strict' and subset == 'all'").set_index(["arm", "dataset", "model"])[
        "macro_f1"
    ]
    assert found["numbers"]["last_token"]["cost"] == pytest.approx(float(np.mean(last["hidden"] - last["hidden-last"])))


def test_a_verdict_that_depends_on_the_protocol_is_counted_as_changed() -> None:
    tables = with_differences(("hidden", -0.05, -0.08, -0.02))
    verdicts = findings.derive(tables)[2]["numbers"]["verdicts"]
    assert verdicts == {
        "pairs": 1,
        "changed": 1,
        "paper": {"wins": 1, "losses": 0},
        "strict": {"wins": 0, "losses": 1},
    }


def test_without_saes_the_gap_is_that_of_hidden_states() -> None:
    found = findings.derive(fakes_tables.world(saes={}))[2]
    assert "scores hidden states" in found["title"]
    assert found["numbers"]["verdicts"] is None


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_one_protocol_alone_shows_no_optimism(protocol: str) -> None:
    assert "protocol was not run" in findings.derive(fakes_tables.world(protocols=(protocol,)))[2]["sentence"]


# --- the last words --------------------------------------------------------------------------------------------------


def test_the_written_findings_come_back_as_lines_for_a_terminal(tmp_path: Path) -> None:
    tables = fakes_tables.world()
    for name in NUMBERS:
        getattr(tables, name).to_parquet(tmp_path / f"{name}.parquet")
    findings.write(tmp_path, tables.titles, tmp_path / "findings.json")
    lines = closing.summary_lines(tmp_path / "findings.json")
    assert [line[:2] for line in lines if not line.startswith("  ")] == ["1.", "2.", "3."]
    assert max(map(len, lines)) <= closing.WIDTH
    assert " ".join(" ".join(lines).split()) == " ".join(
        " ".join([f"{number}.", finding["title"], finding["sentence"], *(f"- {point}" for point in finding["points"])])
        for number, finding in enumerate(findings.derive(tables), start=1)
    )


def test_a_run_that_made_no_findings_ends_in_silence(tmp_path: Path) -> None:
    assert closing.summary_lines(tmp_path / "findings.json") == []


def test_the_last_words_need_no_heavy_library() -> None:
    code = "import sys, tessera.closing; print([m for m in ('pandas', 'numpy', 'matplotlib', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_with_source())
    assert done.stdout.strip() == "[]"


def _with_source() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(closing.__file__).parents[1])}
