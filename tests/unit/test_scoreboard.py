"""The scoreboard: the published numbers match themselves, a toy compares with none of them, and each row says why."""

from pathlib import Path
from typing import Any

import fakes_tables
import fakes_transfers
import numpy as np
import pandas as pd
import pytest

from tessera import claims, reference, scoreboard
from tessera.scoreboard import COMPARABLE, HIGHER, LOWER, MATCHES, NOT_COMPARABLE, Run

FOLDER = Path(__file__).parents[2] / "resources" / "reference"
KNOWN = reference.load(FOLDER)
HOLDING = {claim.name: claims.HOLDS for claim in claims.CLAIMS}


def as_ours(protocol: str = "paper") -> tuple[pd.DataFrame, dict[str, Any]]:
    """The published cells, and the authors' best of each dataset, as the cells of a run; and the sources of its config."""
    best = KNOWN.best.assign(experiment="best", classifier="l2", known=True, n_test=np.nan)
    cells = pd.concat([KNOWN.cells[KNOWN.cells["known"]], best], ignore_index=True)
    parts = {f"{d}/{p}": (d, p) for d, p in zip(cells["dataset"], cells["part"], strict=True)}
    sources = {
        "datasets": {name: {"hub": hub, "config": None, "splits": [part]} for name, (hub, part) in parts.items()},
        "models": {name: {"hub": name} for name in cells["model"].unique()},
    }
    ours = cells.assign(
        dataset=[f"{d}/{p}" for d, p in zip(cells["dataset"], cells["part"], strict=True)],
        head=[f"{arm}-{layer:g}-{width:g}" for arm, layer, width in zip(cells["arm"], cells["layer"], cells["width"], strict=True)],
        macro_f1=cells["published"], validation=cells["published"], accuracy=cells["published"], protocol=protocol,
        regime="full", k=np.nan, subset="all", seed=42.0, n_classes=2, status="ok", reason="",
    )  # fmt: skip
    return ours, sources


OURS, SOURCES = as_ours()


def board_of(
    cells: pd.DataFrame, sources: dict[str, Any] = SOURCES, transfers: pd.DataFrame | None = None
) -> pd.DataFrame:
    return pd.DataFrame(list(scoreboard.compared(Run(cells, transfers, sources), KNOWN)))


def row_of(board: pd.DataFrame, **match: Any) -> Any:
    given: dict[str, Any] = {
        "dataset": "willcb/massive-intent", "model": "google/gemma-2-2b", "arm": "sae", "layer": 12, "width": 16384,
        "pooling": "sum", "protocol": "paper",
    }  # fmt: skip
    for name, value in (given | match).items():
        board = board[board[name] == value]
    board = board[board["threshold"].isna()]
    (row,) = board.itertuples()
    return row


def massive(cells: pd.DataFrame) -> pd.Series:
    return cells["dataset"] == "willcb/massive-intent/train"


def test_the_published_numbers_match_themselves() -> None:
    board = board_of(OURS)
    assert len(board) == len(KNOWN.cells)
    known = board["experiment"] != "early_pipeline_nov2024"
    assert (board.loc[known, "status"] == COMPARABLE).all()
    assert (board.loc[known, "verdict"] == MATCHES).all()
    assert (board.loc[known, "difference"] == 0).all()
    assert board.loc[~known, "reason"].str.contains("does not say how tokens were pooled").all()


def test_the_six_findings_hold_on_the_published_numbers_whoever_they_belong_to() -> None:
    rows = claims.table(scoreboard.all_claims(Run(OURS, None, SOURCES), KNOWN)).to_pandas()
    assert claims.verdicts(rows, "paper", "published") == HOLDING
    assert claims.verdicts(rows, "paper", "ours") == HOLDING
    assert set(claims.verdicts(rows, "strict", "published").values()) == {claims.OPEN}
    assert set(claims.verdicts(rows, "strict", "ours").values()) == {claims.OPEN}
    numbers = ["claim", "part", "verdict", "value", "low", "high", "p", "n_datasets", "n_cells"]
    published, ours = (
        rows[(rows["protocol"] == "paper") & (rows["side"] == side)][numbers].reset_index(drop=True)
        for side in ("published", "ours")
    )
    pd.testing.assert_frame_equal(published, ours)


def test_the_findings_fail_on_the_contrary_of_the_published_numbers() -> None:
    """With every score mirrored at one half, what was ahead is behind."""
    mirrored = OURS.assign(macro_f1=1 - OURS["macro_f1"])
    rows = claims.table(scoreboard.all_claims(Run(mirrored, None, SOURCES), KNOWN)).to_pandas()
    assert claims.FAILS in set(claims.verdicts(rows, "paper", "ours").values())
    assert claims.HOLDS not in set(claims.verdicts(rows, "paper", "ours").values())


def test_a_demo_run_compares_with_nothing_and_says_why() -> None:
    tables = fakes_tables.world()
    sources = {
        "datasets": {name: {"demo": name} for name in tables.datasets},
        "models": {name: {"demo": name} for name in tables.models},
    }
    moved = fakes_transfers.world().transfers
    board = board_of(tables.cells, sources, moved)
    assert set(board["protocol"]) == {"paper", "strict"}
    assert set(board["status"]) == {NOT_COMPARABLE}
    assert (board["reason"].str.len() > 0).all()
    assert board["reason"].str.startswith("no dataset of the run is ").any()
    rows = claims.table(scoreboard.all_claims(Run(tables.cells, moved, sources), KNOWN)).to_pandas()
    for protocol in ("paper", "strict"):
        assert set(claims.verdicts(rows, protocol, "ours").values()) == {claims.OPEN}
    told = rows[(rows["side"] == "ours") & (rows["part"] != "")]
    assert (told["reason"].str.len() > 0).all()


def test_a_difference_beyond_the_noise_of_both_is_told_with_its_side() -> None:
    cell = row_of(board_of(OURS))
    for factor, verdict in ((0.9, MATCHES), (1.2, HIGHER), (-1.2, LOWER)):
        moved = OURS.assign(macro_f1=OURS["macro_f1"].where(~massive(OURS), OURS["macro_f1"] + factor * cell.reach))
        found = row_of(board_of(moved))
        assert found.verdict == verdict
        assert found.difference == pytest.approx(factor * cell.reach)


def test_reach_is_the_noise_of_both_sides() -> None:
    cell = row_of(board_of(OURS))
    own = reference.sampling_error(cell.ours, 2302)
    assert cell.reach == pytest.approx(1.96 * np.hypot(cell.noise, own))


@pytest.mark.parametrize(
    ("name", "instead", "reason"),
    [
        ("layer", 13, "no such cell with layer 12"),
        ("width", 32768, "no such cell with width 16,384"),
        ("pooling", "mean", "no such cell with pooling sum"),
        ("threshold", 2.0, "no such cell with no threshold"),
        ("classifier", "means", "no such cell with classifier l2"),
        ("arm", "random", "no cells of the sae arm"),
    ],
)
def test_what_is_missing_is_named(name: str, instead: Any, reason: str) -> None:
    found = row_of(board_of(OURS.assign(**{name: OURS[name].where(~massive(OURS), instead)})))
    assert found.status == NOT_COMPARABLE
    assert reason in found.reason


def test_a_dataset_or_model_that_is_not_there_is_named() -> None:
    for section, name in (("datasets", "willcb/massive-intent/train"), ("models", "google/gemma-2-2b")):
        other = SOURCES | {section: SOURCES[section] | {name: {"file": "copy.csv"}}}
        found = row_of(board_of(OURS, other))
        assert found.status == NOT_COMPARABLE
        assert found.reason.startswith(f"no {section[:-1]} of the run is ")


def test_another_split_is_not_the_published_part() -> None:
    source = {"hub": "willcb/massive-intent", "config": None, "splits": ["train", "test"]}
    other = SOURCES | {"datasets": SOURCES["datasets"] | {"willcb/massive-intent/train": source}}
    found = row_of(board_of(OURS, other))
    assert found.status == NOT_COMPARABLE
    assert found.reason == "the run reads train and test of the dataset, the published score is of train"


def test_a_subset_that_is_read_and_not_probed_by_itself_is_said_to_be_so() -> None:
    hub = "cardiffnlp/tweet_sentiment_multilingual"
    source = {"hub": hub, "configs": ["german", "french"], "splits": ["test"], "subset": "config"}
    own = {name: other for name, other in SOURCES["datasets"].items() if other["hub"] != hub}
    board = board_of(OURS[~OURS["dataset"].str.startswith(hub)], SOURCES | {"datasets": own | {"sentiment": source}})
    reasons = board[board["dataset"] == hub].groupby("part")["reason"].unique()
    assert list(reasons["german"]) == ["the run has no cells of german by itself"]
    assert "the published score is of spanish" in reasons["spanish"][0]


def test_a_configuration_can_be_the_published_part() -> None:
    source = {"hub": "cardiffnlp/tweet_sentiment_multilingual", "config": "german", "splits": ["test"]}
    other = SOURCES | {"datasets": SOURCES["datasets"] | {"cardiffnlp/tweet_sentiment_multilingual/german": source}}
    german = board_of(OURS, other).query("part == 'german'")
    assert (german["status"] == COMPARABLE).all()


def test_a_language_within_a_dataset_of_several_is_shown_and_not_compared() -> None:
    hub = "textdetox/multilingual_toxicity_dataset"
    every = SOURCES["datasets"] | {f"{hub}/{part}": {"file": "x"} for part in ("en", "de", "es", "ru", "zh")}
    other = SOURCES | {"datasets": every | {"toxicity": {"hub": hub, "config": None, "splits": ["en", "de"]}}}
    german = OURS[OURS["dataset"] == f"{hub}/de"].assign(dataset="toxicity", subset="de")
    board = board_of(pd.concat([OURS, german]), other)
    here = board[(board["dataset"] == hub) & (board["part"] == "de")]
    assert (here["status"] == NOT_COMPARABLE).all()
    assert here["reason"].str.contains("trained on all parts of the dataset together").all()
    assert here["ours"].notna().all()
    assert here["difference"].isna().all()


def test_a_sample_of_the_data_is_shown_and_not_compared() -> None:
    found = row_of(board_of(OURS.assign(n_test=OURS["n_test"].where(~massive(OURS), 400))))
    assert found.status == NOT_COMPARABLE
    assert found.reason == "ours is tested on 400 examples, the published score on about 2,302"
    assert found.ours == pytest.approx(found.published)


def test_two_cells_that_would_both_do_are_named() -> None:
    twin = OURS[massive(OURS)].assign(head="another-sae")
    found = row_of(board_of(pd.concat([OURS, twin])))
    assert found.status == NOT_COMPARABLE
    assert "another-sae" in found.reason


def test_a_failed_cell_says_why() -> None:
    found = row_of(board_of(OURS.assign(status=np.where(massive(OURS), "failed", "ok"), reason=np.where(massive(OURS), "it did not converge", ""))))  # fmt: skip
    assert found.status == NOT_COMPARABLE
    assert found.reason == "failed: it did not converge"


def test_strict_scores_are_means_over_splits() -> None:
    splits = [as_ours("strict")[0].assign(seed=seed, macro_f1=OURS["macro_f1"] + 0.001 * seed) for seed in range(5)]
    board = board_of(pd.concat([OURS, *splits]))
    assert len(board) == 2 * len(KNOWN.cells)
    found = row_of(board, protocol="strict")
    assert found.n_seeds == 5
    assert found.difference == pytest.approx(0.002)


def test_a_behaviour_that_is_a_transfer_alone_is_no_cell_and_yet_judged() -> None:
    behaviours = [f"{hub}/train" for hub in claims.HIDDEN_AHEAD]
    rest = OURS[~OURS["dataset"].isin(behaviours)].assign(protocol="strict")
    moved = pd.DataFrame(
        [
            {"kind": "model", "status": "ok", "arm": arm, "head": None, "share": 1.0, "selection": "none",
             "target": target, "model": "google/gemma-2-2b", "macro_f1": score}
            for target in behaviours
            for arm, score in (("sae", 0.6), ("hidden", 0.7))
        ]
    )  # fmt: skip
    board = board_of(rest, transfers=moved)
    here = board[(board["dataset"] == claims.HIDDEN_AHEAD[0]) & (board["model"] == "google/gemma-2-2b")]
    assert here["reason"].str.contains("as a transfer, which chooses the pooling itself").all()
    rows = claims.table(scoreboard.all_claims(Run(rest, moved, SOURCES), KNOWN)).to_pandas()
    assert claims.verdicts(rows, "strict", "ours")["behaviours"] == claims.HOLDS


def test_other_models_layers_are_grouped_by_thirds() -> None:
    run = Run(fakes_tables.world().cells, None, {"datasets": {}, "models": {}})
    groups = {
        (cell["layer"], cell["group"]) for cell in scoreboard.own_cells(run, KNOWN, "paper") if cell["arm"] == "sae"
    }
    assert groups == {(1, "early"), (3, "middle"), (5, "late")}


def test_the_tables_are_written_the_same_twice(tmp_path: Path) -> None:
    OURS.to_parquet(tmp_path / "cells.parquet")
    for folder in ("a", "b"):
        scoreboard.write(
            cells=tmp_path / "cells.parquet", transfers=None, published=FOLDER, sources=SOURCES, images=[],
            output=tmp_path / folder,
        )  # fmt: skip
    for name in ("scoreboard.parquet", "scoreboard.csv", "claims.parquet", "claims.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    written = pd.read_parquet(tmp_path / "a" / "scoreboard.parquet")
    assert (written["status"] == COMPARABLE).sum() == KNOWN.cells["known"].sum()
