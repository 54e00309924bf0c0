"""Over datasets: whether one arm beats another on datasets at large, and how arms rank.

A difference on one dataset has an interval over its test examples, which says nothing of other datasets. Here a dataset is
the unit: a pair of arms has one difference on each, and the question is whether they lean to one side.

- The test is Wilcoxon's signed-rank test, exact where that can be computed. It asks for no normal distribution, and one
  dataset of enormous differences does not decide it.
- Fewer than six datasets cannot reach p < 0.05 whatever they show, so there is no p, and the verdict says so.
- All pairs of arms and models of a protocol are looked at together, so their p are corrected together (Holm).
- Effects stand beside the p: `rank_biserial` is by how much the ranks that speak for `arm_a` outweigh the others, from
  -1 to 1; `standardised` is the mean difference in standard deviations of the differences.

Datasets of one study are no random sample of all there could be. What is told here is about datasets like these.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import stats

from tessera import statistics

Array = npt.NDArray[Any]
Row = dict[str, Any]

FEWEST = 6
ALPHA = 0.05
# Scores are means of ratios: what differs by less than this differs by rounding.
DIGITS = 12

A_BETTER, B_BETTER, OPEN, TOO_FEW = "a better", "b better", "cannot be told", "too few datasets"

COMPARISONS = pa.schema(
    [(name, pa.string()) for name in ("protocol", "model", "arm_a", "arm_b")]
    + [("n_datasets", pa.int32()), ("mean", pa.float64()), ("median", pa.float64())]
    + [(name, pa.int32()) for name in ("wins", "ties", "losses")]
    + [(name, pa.float64()) for name in ("rank_biserial", "standardised", "p", "p_holm")]
    + [("n_comparisons", pa.int32()), ("verdict", pa.string())]
)
RANKS = pa.schema(
    [(name, pa.string()) for name in ("protocol", "model", "arm")]
    + [(name, pa.float64()) for name in ("mean_rank", "low", "high")]
    + [(name, pa.int32()) for name in ("n_arms", "n_datasets", "n_left_out")]
)


# --- pairs of arms -------------------------------------------------------------------------------------------------


def compared(differences: Sequence[Row]) -> pa.Table:
    """Each pair of arms of a model over datasets, from the rows of the table of differences."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in differences:
        found[tuple(row[name] for name in ("protocol", "model", "arm_a", "arm_b"))].append(row["difference"])
    rows = [dict(zip(COMPARISONS.names, key, strict=False)) | described(values) for key, values in found.items()]
    for protocol in {row["protocol"] for row in rows}:
        tested = [row for row in rows if row["protocol"] == protocol and row["p"] is not None]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row |= {"p_holm": p, "n_comparisons": len(tested), "verdict": _verdict(p, row["rank_biserial"])}
    return pa.Table.from_pylist(rows, COMPARISONS)


def described(differences: Sequence[float]) -> Row:
    """What one comparison says of itself, before it is corrected for the others."""
    values = np.round(np.asarray(differences, np.float64), DIGITS)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {
        "n_datasets": len(values),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "wins": int((values > 0).sum()),
        "ties": int((values == 0).sum()),
        "losses": int((values < 0).sum()),
        "rank_biserial": rank_biserial(values),
        "standardised": float(values.mean()) / spread if spread > 0 else None,
        "p": wilcoxon(values) if len(values) >= FEWEST else None,
        "p_holm": None,
        "n_comparisons": None,
        "verdict": TOO_FEW,
    }


def wilcoxon(values: Array) -> float:
    """Two-sided p of the signed-rank test. Ties do not count; differences that are all ties are no evidence at all.

    SciPy computes it exactly up to 50 differences, up to 13 if some are equally large, and by the normal distribution beyond.
    """
    differing = values[values != 0]
    return float(stats.wilcoxon(differing, method="auto").pvalue) if len(differing) else 1.0


def rank_biserial(values: Array) -> float:
    """The matched-pairs rank-biserial correlation: of the ranks by size, the share above zero less the share below."""
    differing = values[values != 0]
    ranks = stats.rankdata(np.abs(differing))
    return float((np.sign(differing) * ranks).sum() / ranks.sum()) if len(differing) else 0.0


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: the smallest p times their number, the next times one less; none below a smaller one's, or above 1."""
    corrected = np.empty(len(ps))
    order = np.argsort(ps, kind="stable")
    factors = np.arange(len(ps), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(ps)[order] * factors), 1)
    return [float(p) for p in corrected]


def _verdict(p: float, effect: float) -> str:
    if p >= ALPHA:
        return OPEN
    return A_BETTER if effect > 0 else B_BETTER


# --- ranks ---------------------------------------------------------------------------------------------------------


def ranked(arms: Sequence[Row]) -> pa.Table:
    """The mean rank of each arm over datasets, 1 being the best, from rows of the table of arms.

    Arms that belong to no model (`text`) are ranked within every model. A rank means something among the same arms only:
    a dataset on which one of them has no score is left out, and counted.
    """
    return pa.Table.from_pylist(list(_rank_rows(arms)), RANKS)


def _rank_rows(arms: Sequence[Row]) -> Iterator[Row]:
    for protocol in sorted({row["protocol"] for row in arms}):
        here = [row for row in arms if row["protocol"] == protocol and row["macro_f1"] is not None]
        for model in sorted({row["model"] for row in here} - {"text"}) or ["text"]:
            scores = {(row["dataset"], row["arm"]): row["macro_f1"] for row in here if row["model"] in (model, "text")}
            names, datasets = sorted({arm for _, arm in scores}), sorted({dataset for dataset, _ in scores})
            whole = [dataset for dataset in datasets if all((dataset, arm) in scores for arm in names)]
            counts = {"n_arms": len(names), "n_datasets": len(whole), "n_left_out": len(datasets) - len(whole)}
            table = np.array([[scores[dataset, arm] for arm in names] for dataset in whole])
            for arm, rank in zip(names, _mean_ranks(table) if whole else [{}] * len(names), strict=True):
                yield {"protocol": protocol, "model": model, "arm": arm} | rank | counts


def _mean_ranks(scores: Array) -> list[Row]:
    """For each column its mean rank in the rows, with the bootstrap over rows; of a few rows it would say too much."""
    ranks = stats.rankdata(-np.round(scores, DIGITS), axis=1)
    if len(ranks) < FEWEST:
        return [{"mean_rank": float(mean)} for mean in ranks.mean(axis=0)]
    weights = np.concatenate(list(statistics.draws(len(ranks), statistics.REPLICATES)))
    found = [statistics.interval(float(of_arm.mean()), weights @ of_arm / len(ranks), len(ranks)) for of_arm in ranks.T]
    return [{"mean_rank": one.value, "low": one.low, "high": one.high} for one in found]
