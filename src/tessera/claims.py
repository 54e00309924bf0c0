"""Six findings of the study that a reproduction should show, each held against a frame of cells by a stated test.

One path judges the published numbers and a run's own: whatever has a row a cell, with the columns of `CELLS`. `choice` is
what the best of several configurations is chosen by, which is the score itself under the paper's protocol and the inner
validation score under the strict one; `macro_f1` is then what the chosen one scored.

A claim has parts, and each part one test. Most tests pair cells that are alike in all but the one thing that the claim is
about, average the differences within a dataset, and bootstrap over datasets, since the cells of one dataset share its
examples and its peculiarities. Each gives one of three verdicts:

- *better* holds if the interval lies above zero, and does not hold if it reaches down to zero and not up to the margin;
- *at least as good* holds if the interval lies above minus the margin, and does not hold if it lies below;
- *equal* holds if the interval lies within the margin on both sides, and does not hold if it lies outside.

What is neither, and anything seen on fewer than six datasets, cannot be told. The margin, 0.02 macro-F1, is below the
noise of most published cells. Two parts are about a handful of named datasets, too few for an interval: they count.
A claim holds if all its parts do, and does not hold if one of them does not. No number here is corrected for how many
claims are looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tessera import comparisons, statistics
from tessera.results import rows_of

CELLS = [
    "model", "dataset", "part", "kind", "layer", "group", "width", "pooling", "threshold", "arm", "macro_f1", "choice",
]  # fmt: skip
# What two cells share that are compared; each test lets go of what it is about.
MATCHED = ("model", "dataset", "part", "layer", "width", "pooling", "threshold")

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
MARGIN = 0.02
FEWEST = comparisons.FEWEST

NOT_TEXT = ("behaviour", "vision")
AHEAD = ("many-class", "multilingual", "vision")
SATURATED = ("AIM-Harvard/reject_prompts", "jackhhao/jailbreak-classification", "Anthropic/election_questions")
CEILING = 0.98
HIDDEN_AHEAD = (
    "AIM-Harvard/google_gemma_2_2b_pubmed_qa",
    "AIM-Harvard/google_gemma_2_9b_pubmed_qa",
    "AIM-Harvard/google_gemma_2_9b_it_pubmed_qa",
    "AIM-Harvard/google_gemma_2_9b_boolq",
)
ENOUGH_OF_HIDDEN_AHEAD = 3

Frame = pd.DataFrame


@dataclass(frozen=True)
class Outcome:
    """What one test says. `value` is a mean difference in macro-F1 over datasets; None where there is nothing to test."""

    verdict: str
    reason: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n_datasets: int = 0
    n_cells: int = 0
    wins: int = 0
    losses: int = 0


@dataclass(frozen=True)
class Part:
    """A part of a claim: what it says, how it is tested in words, and the test."""

    name: str
    test: str
    judge: Callable[[Frame], Outcome]


@dataclass(frozen=True)
class Claim:
    name: str
    title: str
    parts: Sequence[Part]


# --- tests over datasets -------------------------------------------------------------------------------------------


def _better(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high < MARGIN else OPEN


def _as_good(low: float, high: float) -> str:
    return HOLDS if low > -MARGIN else FAILS if high < -MARGIN else OPEN


def _equal(low: float, high: float) -> str:
    return HOLDS if low > -MARGIN and high < MARGIN else FAILS if low > MARGIN or high < -MARGIN else OPEN


Rule = Callable[[float, float], str]


def over_datasets(differences: Frame, rule: Rule) -> Outcome:
    """The verdict on paired differences (`dataset`, `difference`), a dataset being the unit."""
    if differences.empty:
        return Outcome(OPEN, "no two cells are alike in all but this")
    values = differences.groupby("dataset")["difference"].mean().to_numpy()
    told = comparisons.described(values.tolist())
    found: dict[str, Any] = {"value": told["mean"], "n_datasets": len(values), "n_cells": len(differences)}
    found |= {name: told[name] for name in ("wins", "losses", "p")}
    if len(values) < FEWEST:
        few = f"{len(values)} datasets have" if len(values) > 1 else "one dataset has"
        return Outcome(OPEN, f"{few} such cells, and less than {FEWEST} cannot speak for others", **found)
    weights = np.concatenate(list(statistics.draws(len(values), statistics.REPLICATES)))
    estimate = statistics.interval(float(values.mean()), weights @ values / len(values), len(values))
    if estimate.low is None or estimate.high is None:
        raise ValueError("an interval over several datasets is missing")
    verdict = rule(estimate.low, estimate.high)
    reason = "the interval is compatible with both" if verdict == OPEN else ""
    return Outcome(verdict, reason, low=estimate.low, high=estimate.high, **found)


def paired(better: Frame, worse: Frame, about: Sequence[str]) -> Frame:
    """What `better` scores above `worse` where both have a cell that is alike in everything except `about`."""
    alike = [name for name in MATCHED if name not in about]
    means = [cells.groupby(alike, dropna=False)["macro_f1"].mean().reset_index() for cells in (better, worse)]
    both = means[0].merge(means[1], on=alike, suffixes=("", "_worse"))
    return both.assign(difference=both["macro_f1"] - both["macro_f1_worse"])


def best_of_each(frame: Frame) -> Frame:
    """By dataset and part what the best SAE configuration scores above the best hidden state, over layers and models.

    Models that lack one of the two are left out. A hidden state is that of the last token, as it was published; or what a
    transfer chose by itself.
    """
    plain = (frame["arm"] == "hidden") & frame["pooling"].isin(["last", CHOSEN])
    frame = frame[(frame["arm"] == "sae") | plain]
    arms = frame.groupby(["model", "dataset", "part"])["arm"].transform("nunique")
    ordered = frame[arms == 2].sort_values("choice", ascending=False, kind="stable")
    best = ordered.drop_duplicates(["dataset", "part", "arm"])
    wide = best.pivot(index=["dataset", "part", "kind"], columns="arm", values="macro_f1").reset_index()
    for arm in ("sae", "hidden"):
        wide[arm] = wide[arm] if arm in wide else pd.Series(dtype="float64")
    return wide.assign(difference=wide["sae"] - wide["hidden"])


# The pooling of a cell that stands for whatever a transfer chose.
CHOSEN = "chosen"


# --- the parts of claims -------------------------------------------------------------------------------------------


def _sae(frame: Frame) -> Frame:
    return frame[frame["arm"] == "sae"]


def _text(frame: Frame) -> Frame:
    sae = _sae(frame)
    return sae[~sae["kind"].isin(NOT_TEXT)]


def _raw(cells: Frame) -> Frame:
    return cells[cells["threshold"].isna()]


def _binary(cells: Frame) -> Frame:
    return cells[cells["threshold"] == 1]


def _summed(cells: Frame) -> Frame:
    return cells[cells["pooling"] == "sum"]


def _top(cells: Frame, n: int | None = None) -> Frame:
    if n is not None:
        return cells[cells["pooling"] == f"top-{n}"]
    return cells[cells["pooling"].str.startswith("top-")]


def _summed_binary_above_raw(frame: Frame) -> Outcome:
    cells = _summed(_text(frame))
    return over_datasets(paired(_binary(cells), _raw(cells), ["threshold"]), _better)


def _top_raw_above_binary(frame: Frame) -> Outcome:
    cells = _top(_text(frame))
    return over_datasets(paired(_raw(cells), _binary(cells), ["threshold"]), _better)


def _summed_binary_like_top_50(frame: Frame) -> Outcome:
    cells = _text(frame)
    about = ["pooling", "threshold"]
    return over_datasets(paired(_binary(_summed(cells)), _raw(_top(cells, 50)), about), _equal)


def _top_50_above_summed_raw(frame: Frame) -> Outcome:
    cells = _raw(_text(frame))
    return over_datasets(paired(_top(cells, 50), _summed(cells), ["pooling"]), _better)


def _middle_above(other: str) -> Callable[[Frame], Outcome]:
    def judge(frame: Frame) -> Outcome:
        cells = _sae(frame)
        middle, others = (cells[cells["group"] == group] for group in ("middle", other))
        return over_datasets(paired(middle, others, ["layer"]), _as_good)

    return judge


def _narrow_like_wide(frame: Frame) -> Outcome:
    cells = _sae(frame)
    narrow, wide = (cells[cells["width"] == width] for width in (16384, 65536))
    return over_datasets(paired(narrow, wide, ["width"]), _as_good)


def _sae_ahead(frame: Frame) -> Outcome:
    differences = best_of_each(frame[frame["kind"].isin(AHEAD)])
    found = over_datasets(differences, _better)
    behind = [kind for kind, gap in differences.groupby("kind")["difference"].mean().items() if gap <= 0]
    if found.verdict == HOLDS and behind:
        return Outcome(**{**vars(found), "verdict": FAILS, "reason": f"not so for {', '.join(map(str, behind))}"})
    return found


def _counted(frame: Frame, named: Sequence[str]) -> tuple[Frame, dict[str, Any]]:
    """The best of each arm on the datasets of these names, their parts averaged, and what is told of that."""
    best = best_of_each(frame[frame["dataset"].isin(named)])
    means = best.groupby("dataset")[["sae", "hidden", "difference"]].mean()
    gaps = means["difference"]
    told = {
        "n_datasets": len(means),
        "n_cells": len(best),
        "wins": int((gaps > 0).sum()),
        "losses": int((gaps < 0).sum()),
    }
    return means, told | {"value": float(gaps.mean()) if len(means) else None}


def _saturated(frame: Frame) -> Outcome:
    means, told = _counted(frame, SATURATED)
    full = (means[["sae", "hidden"]] >= CEILING).all(axis=1)
    if not full.all():
        return Outcome(FAILS, f"not so on {', '.join(map(str, means.index[~full]))}", **told)
    missing = [name for name in SATURATED if name not in means.index]
    return Outcome(OPEN, f"no cells of {', '.join(missing)}", **told) if missing else Outcome(HOLDS, **told)


def _hidden_ahead(frame: Frame) -> Outcome:
    means, told = _counted(frame, HIDDEN_AHEAD)
    if len(means) < ENOUGH_OF_HIDDEN_AHEAD:
        return Outcome(OPEN, f"cells of {len(means)} of the {len(HIDDEN_AHEAD)} datasets are there", **told)
    ahead = int((means["difference"] < -MARGIN).sum())
    reason = f"ahead on {ahead} of {len(means)}"
    return Outcome(HOLDS if 2 * ahead > len(means) else FAILS, reason, **told)


_OVER = "mean paired difference with its 95 % bootstrap interval over datasets"
_BEST = "best SAE configuration less best hidden state of the last token"

CLAIMS = (
    Claim(
        "binarising",
        "Binarising helps full summed features on text, and hurts after per-token top-N",
        (
            Part(
                "summed features",
                f"binary less raw, same model, data, layer and width, sum pooling, text: {_OVER} lies above 0",
                _summed_binary_above_raw,
            ),
            Part(
                "after top-N",
                f"raw less binary, same model, data, layer, width and N, text: {_OVER} lies above 0",
                _top_raw_above_binary,
            ),
        ),
    ),
    Claim(
        "full-or-top",
        "Full binarised features are about equal to raw top-50 counts, and both beat full raw sums",
        (
            Part(
                "binarised and top-50",
                f"binary sums less raw top-50, text: {_OVER} lies within {MARGIN} of 0",
                _summed_binary_like_top_50,
            ),
            Part(
                "binarised above raw",
                f"binary sums less raw sums, text: {_OVER} lies above 0",
                _summed_binary_above_raw,
            ),
            Part("top-50 above raw", f"raw top-50 less raw sums, text: {_OVER} lies above 0", _top_50_above_summed_raw),
        ),
    ),
    Claim(
        "layers",
        "Middle layers are at least as good as early and late ones",
        tuple(
            Part(
                f"middle and {other}",
                f"SAE features of middle less {other} layers, all else alike: {_OVER} lies above -{MARGIN}",
                _middle_above(other),
            )
            for other in ("early", "late")
        ),
    ),
    Claim(
        "widths",
        "SAEs of width 16k are at least as good as those of 65k",
        (
            Part(
                "16k and 65k",
                f"width 16,384 less width 65,536, all else alike: {_OVER} lies above -{MARGIN}",
                _narrow_like_wide,
            ),
        ),
    ),
    Claim(
        "tasks",
        "SAE features are ahead on many-class, multilingual and vision tasks, and saturated on reject, jailbreak and election",
        (
            Part(
                "ahead",
                f"{_BEST}, a dataset of these kinds a unit: mean with its 95 % bootstrap interval lies above 0, and the"
                " mean of each kind does",
                _sae_ahead,
            ),
            Part("saturated", f"on each of the three the best of both inputs scores at least {CEILING}", _saturated),
        ),
    ),
    Claim(
        "behaviours",
        "Predicting behaviour on PubMedQA and BoolQ of the 9B model is mostly won by hidden states",
        (
            Part(
                "hidden states ahead",
                f"{_BEST}: below -{MARGIN} on more than half of the three PubMedQA datasets and that of BoolQ; at least"
                f" {ENOUGH_OF_HIDDEN_AHEAD} of them are needed",
                _hidden_ahead,
            ),
        ),
    ),
)


# --- rows ----------------------------------------------------------------------------------------------------------

TABLE = pa.schema(
    [(name, pa.string()) for name in ("claim", "part", "title", "test", "protocol", "side", "verdict", "reason")]
    + [(name, pa.float64()) for name in ("value", "low", "high", "p")]
    + [(name, pa.int32()) for name in ("n_datasets", "n_cells", "wins", "losses")]
)


def judged(frame: Frame, protocol: str, side: str, nothing: str = "") -> list[dict[str, Any]]:
    """A row for each claim, with an empty `part`, and below it one for each of its parts.

    `nothing` says why there are no cells at all, where there are none.
    """
    same = {"protocol": protocol, "side": side}
    rows = []
    for claim in CLAIMS:
        outcomes = [part.judge(frame) if len(frame) else Outcome(OPEN, nothing) for part in claim.parts]
        verdict, reason = _together(claim, outcomes)
        tests = "; ".join(f"{part.name}: {part.test}" for part in claim.parts)
        whole = {"n_datasets": min(found.n_datasets for found in outcomes), "n_cells": sum(o.n_cells for o in outcomes)}
        told = {"claim": claim.name, "part": "", "title": claim.title, "test": tests, "verdict": verdict}
        rows.append(told | {"reason": nothing or reason} | same | whole)
        for part, found in zip(claim.parts, outcomes, strict=True):
            about = {"claim": claim.name, "part": part.name, "title": claim.title, "test": part.test}
            rows.append(about | same | vars(found))
    return rows


def _together(claim: Claim, outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """The verdict of the whole, and which parts it owes it to."""
    verdicts = [found.verdict for found in outcomes]
    if set(verdicts) == {HOLDS}:
        return HOLDS, ""
    verdict = FAILS if FAILS in verdicts else OPEN
    because = [
        f"{part.name}: {found.reason or verdict}"
        for part, found in zip(claim.parts, outcomes, strict=True)
        if found.verdict == verdict
    ]
    return verdict, "; ".join(because)


def frame_of(cells: Sequence[dict[str, Any]]) -> Frame:
    """The cells as a frame that the tests can read, also if there are none."""
    numbers = dict.fromkeys(("layer", "width", "threshold", "macro_f1", "choice"), "float64")
    return pd.DataFrame(cells, columns=CELLS).astype(numbers | {"pooling": "object"})


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in TABLE.names} for row in rows], TABLE)


def verdicts(found: Frame, protocol: str, side: str) -> dict[str, str]:
    """Claim -> verdict, from the table of claims."""
    here = found[(found["protocol"] == protocol) & (found["side"] == side) & (found["part"] == "")]
    return {row.claim: row.verdict for row in rows_of(here)}
