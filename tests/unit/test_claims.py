"""The six findings: each test gives all three verdicts, on cells that are made for it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tessera import claims

SUMS = {"raw": ("sum", None), "binary": ("sum", 1.0), "top": ("top-50", None), "top-binary": ("top-50", 1.0)}


def cell(dataset: int | str, score: float, **values: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "model": "m", "dataset": str(dataset), "part": "p", "kind": "text", "layer": 12, "group": "middle", "width": 16384,
        "pooling": "sum", "threshold": None, "arm": "sae", "macro_f1": score, "choice": score,
    }  # fmt: skip
    return given | values


def poolings(n: int = 8, **lifts: float) -> pd.DataFrame:
    """Cells of `n` datasets, each pooling so much above 0.5, with a little that differs between datasets."""
    return claims.frame_of(
        [
            cell(
                i,
                0.5 + 0.03 * i + lifts.get(name.replace("-", "_"), 0.0) * (1 + 0.1 * i),
                pooling=pooling,
                threshold=cut,
            )
            for i in range(n)
            for name, (pooling, cut) in SUMS.items()
        ]
    )


def judged(frame: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["claim"], row["part"]): row for row in claims.judged(frame, "paper", "ours")}


def verdict(frame: pd.DataFrame, claim: str, part: str = "") -> str:
    return str(judged(frame)[claim, part]["verdict"])


def test_binarising_that_helps_sums_and_hurts_counts_holds() -> None:
    assert verdict(poolings(binary=0.05, top=0.05), "binarising") == claims.HOLDS


def test_binarising_that_does_the_contrary_does_not_hold() -> None:
    found = judged(poolings(raw=0.05, top_binary=0.05))
    assert found["binarising", ""]["verdict"] == claims.FAILS
    assert found["binarising", "summed features"]["value"] < 0


def test_one_part_that_does_not_hold_is_enough() -> None:
    found = judged(poolings(binary=0.05))["binarising", ""]
    assert found["verdict"] == claims.FAILS
    assert "after top-N" in found["reason"]


def test_binary_sums_equal_to_counts_and_both_above_sums_holds() -> None:
    assert verdict(poolings(binary=0.05, top=0.055), "full-or-top") == claims.HOLDS


def test_binary_sums_far_from_counts_are_not_equal() -> None:
    assert verdict(poolings(binary=0.05, top=0.15), "full-or-top", "binarised and top-50") == claims.FAILS


def test_what_varies_too_much_cannot_be_told() -> None:
    frame = poolings(binary=0.0)
    binary = frame["threshold"] == 1
    frame.loc[binary, "macro_f1"] += np.where(frame.loc[binary, "dataset"].astype(int) % 2, 0.2, -0.2)
    assert verdict(frame, "binarising", "summed features") == claims.OPEN


def test_few_datasets_cannot_speak_for_others_however_large_the_difference() -> None:
    found = judged(poolings(5, binary=0.3, top=0.3))["binarising", "summed features"]
    assert found["verdict"] == claims.OPEN
    assert "5 datasets" in found["reason"]
    assert found["value"] > 0.2


def test_many_cells_of_one_dataset_count_once() -> None:
    frame = pd.concat([poolings(1, binary=0.3).assign(layer=layer) for layer in range(30)])
    found = judged(frame)["binarising", "summed features"]
    assert (found["n_datasets"], found["n_cells"], found["verdict"]) == (1, 30, claims.OPEN)


def test_images_and_behaviours_are_no_text() -> None:
    found = judged(poolings(binary=0.05).assign(kind="behaviour"))["binarising", "summed features"]
    assert found["n_cells"] == 0


@pytest.mark.parametrize(("lift", "expected"), [(0.03, claims.HOLDS), (-0.01, claims.HOLDS), (-0.06, claims.FAILS)])
def test_middle_layers_may_be_worse_by_less_than_the_margin(lift: float, expected: str) -> None:
    groups = {"early": 5, "middle": 12, "late": 19}
    cells = [
        cell(i, 0.6 + 0.01 * i + (lift * (1 + 0.02 * i) if group == "middle" else 0), layer=layer, group=group)
        for i in range(8)
        for group, layer in groups.items()
    ]
    assert verdict(claims.frame_of(cells), "layers") == expected


@pytest.mark.parametrize(("lift", "expected"), [(0.03, claims.HOLDS), (-0.06, claims.FAILS)])
def test_narrow_saes_are_held_against_wide_ones(lift: float, expected: str) -> None:
    cells = [
        cell(i, 0.6 + 0.01 * i + (lift * (1 + 0.02 * i) if width == 16384 else 0), width=width)
        for i in range(8)
        for width in (16384, 65536)
    ]
    assert verdict(claims.frame_of(cells), "widths") == expected


def arms(scores: dict[str, tuple[str, float, float]]) -> pd.DataFrame:
    """Of each dataset its kind and what SAE features and the last token's hidden state score."""
    cells = []
    for name, (kind, sae, hidden) in scores.items():
        cells.append(cell(name, sae, kind=kind))
        cells.append(cell(name, hidden, kind=kind, arm="hidden", width=None, pooling="last"))
    return claims.frame_of(cells)


AHEAD = {f"{kind}-{i}": (kind, 0.8 + 0.01 * i, 0.7) for kind in claims.AHEAD for i in range(3)}
FULL = dict.fromkeys(claims.SATURATED, ("saturated", 0.99, 1.0))


def test_sae_features_ahead_and_saturated_tasks_hold() -> None:
    assert verdict(arms(AHEAD | FULL), "tasks") == claims.HOLDS


def test_one_kind_on_which_they_are_behind_is_told() -> None:
    behind = {f"vision-{i}": ("vision", 0.79, 0.8) for i in range(3)}
    found = judged(arms(AHEAD | behind))["tasks", "ahead"]
    assert found["verdict"] in (claims.FAILS, claims.OPEN)
    assert found["verdict"] == claims.FAILS
    assert "vision" in found["reason"]


def test_a_task_that_is_not_saturated_does_not_hold_and_one_that_is_missing_cannot_be_told() -> None:
    poor = FULL | {claims.SATURATED[1]: ("saturated", 0.9, 0.99)}
    assert verdict(arms(poor), "tasks", "saturated") == claims.FAILS
    some = {name: FULL[name] for name in claims.SATURATED[:2]}
    found = judged(arms(some))["tasks", "saturated"]
    assert found["verdict"] == claims.OPEN
    assert claims.SATURATED[2] in found["reason"]


@pytest.mark.parametrize(
    ("ahead", "there", "expected"),
    [(4, 4, claims.HOLDS), (3, 4, claims.HOLDS), (2, 4, claims.FAILS), (2, 2, claims.OPEN)],
)
def test_hidden_states_win_behaviours_on_more_than_half(ahead: int, there: int, expected: str) -> None:
    scores = {
        name: ("behaviour", 0.6, 0.7 if i < ahead else 0.61) for i, name in enumerate(claims.HIDDEN_AHEAD[:there])
    }
    assert verdict(arms(scores), "behaviours") == expected


def test_the_best_is_chosen_by_the_choice_and_not_by_the_score() -> None:
    frame = arms(dict.fromkeys(claims.HIDDEN_AHEAD, ("behaviour", 0.6, 0.7)))
    lucky = frame[frame["arm"] == "sae"].assign(macro_f1=0.9, choice=0.1, layer=19)
    assert verdict(pd.concat([frame, lucky]), "behaviours") == claims.HOLDS


def test_a_model_without_saes_lends_no_hidden_state() -> None:
    frame = arms(dict.fromkeys(claims.HIDDEN_AHEAD, ("behaviour", 0.7, 0.6)))
    alone = frame[frame["arm"] == "hidden"].assign(model="other", macro_f1=0.99, choice=0.99)
    assert verdict(pd.concat([frame, alone]), "behaviours") == claims.FAILS


def test_without_cells_every_claim_says_why() -> None:
    rows = claims.judged(claims.frame_of([]), "strict", "published", "nothing was published")
    assert {row["verdict"] for row in rows} == {claims.OPEN}
    assert {row["reason"] for row in rows} == {"nothing was published"}
    assert claims.table(rows).num_rows == len(rows)
