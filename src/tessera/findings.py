"""What a run says, in three findings of a sentence or two, each with the numbers it stands on; and a fourth where it transfers.

The three are always the same questions: do SAE features beat the best plain baseline, what do pooling, threshold and
layer do, and how optimistic is the paper's protocol. The fourth is that of `tessera.transfer_findings`. A finding never says more than its interval: an advantage whose
95 % interval holds zero "cannot be told", and so does a question that a run does not answer, with the reason.

To win is to beat every plain baseline there is, and to lose is to lose to one of them; the one named is the one that
leaves SAE features the smallest lead. The intervals are those of the paired, clustered bootstrap; each stands alone, and no number here is
corrected for how many datasets and models were looked at.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tessera import files, transfer_findings, transfer_results
from tessera.results import ARMS, Tables, groups_of, load, rows_of
from tessera.transfer_results import Titles

Finding = dict[str, Any]

WINS, LOSES, OPEN = "wins", "loses", "cannot be told"
LISTED = 3
NAMES = {"hidden": "hidden states", "tfidf": "TF-IDF", "sae": "SAE features"}
SETTINGS = ("pooling", "threshold", "layer")


def derive(tables: Tables) -> list[Finding]:
    """Exactly three findings: `title`, `sentence`, `points` that go into detail, and `numbers` to check them by."""
    return [against_baselines(tables), settings(tables), optimism(tables)]


def write(tables_folder: Path | str, titles: Titles, path: Path | str) -> None:
    """Derive the findings from the tables in a folder and write them to `path` as JSON."""
    found = derive(load(tables_folder, titles))
    if titles.get("transfers"):
        found.append(transfer_findings.transfer(transfer_results.load(tables_folder, titles)))
    files.write_json(path, found)


def untold(title: str, why: str) -> Finding:
    return {"title": title, "sentence": f"This cannot be told: {why}.", "points": [], "numbers": {}}


def told(title: str, sentences: list[str], numbers: dict[str, Any], points: Sequence[str] = ()) -> Finding:
    return {"title": title, "sentence": " ".join(sentences), "points": list(points), "numbers": numbers}


# --- SAE features against the plain baselines ----------------------------------------------------------------------


def against_baselines(tables: Tables) -> Finding:
    title = "SAE features against the best plain baseline"
    if "strict" not in set(tables.arms["protocol"]):
        return untold(title, "the strict protocol was not run, and the paper's chooses on the test part")
    found = comparisons(tables, "strict")
    if not found:
        return untold(title, "the config names no SAE")
    counts = {verdict: sum(entry["verdict"] == verdict for entry in found) for verdict in (WINS, LOSES, OPEN)}
    heading = _heading(counts, len(found))
    if len(found) <= LISTED:
        clauses = "; ".join(_clause(tables, entry) for entry in found)
        sentences = [f"{clauses[0].upper()}{clauses[1:]}."]
    else:
        sentences = _summary(tables, found, counts)
    return told(heading, sentences, {"protocol": "strict", "counts": counts, "comparisons": found})


def comparisons(tables: Tables, protocol: str, arms: tuple[str, ...] = ("hidden", "tfidf")) -> list[dict[str, Any]]:
    """The SAE arm of every dataset and model beside the strongest of the plain `arms`, and who wins."""
    rows = tables.arm_rows(protocol)
    sae = rows[rows["arm"] == "sae"]
    pairs = [(dataset, model) for dataset in tables.datasets for model in tables.models]
    present = set(zip(sae["dataset"], sae["model"], strict=True))
    return [_comparison(tables, rows, pair, protocol, arms) for pair in pairs if pair in present]


def _comparison(
    tables: Tables, rows: pd.DataFrame, pair: tuple[str, str], protocol: str, arms: tuple[str, ...]
) -> dict[str, Any]:
    dataset, model = pair
    entry: dict[str, Any] = {"dataset": dataset, "model": model, "baseline": None, "verdict": OPEN, "reason": ""}
    here = rows[(rows["dataset"] == dataset) & rows["model"].isin([model, "text"]) & rows["arm"].isin(["sae", *arms])]
    lost = [f"{_name(row.arm)} failed ({row.reason})" for row in rows_of(here[here["status"] != "ok"])]
    measured = tables.differences
    measured = measured[
        (measured["protocol"] == protocol)
        & (measured["dataset"] == dataset)
        & (measured["model"] == model)
        & (measured["arm_a"] == "sae")
        & measured["arm_b"].isin(arms)
        & measured["difference"].notna()
    ]
    if measured.empty:
        return entry | {"reason": "; ".join(lost) or "there is no plain baseline beside it"}
    unpaired = here.loc[(here["status"] == "ok") & (here["arm"] != "sae") & ~here["arm"].isin(measured["arm_b"]), "arm"]
    lost += [f"there is no paired difference with {_name(arm)}" for arm in unpaired]
    beaten_by = measured[measured["high"] < 0]
    named = measured if beaten_by.empty else beaten_by
    worst = next(rows_of(named.sort_values(["difference", "arm_b"])))
    entry |= {"baseline": worst.arm_b, "difference": worst.difference, "low": worst.low, "high": worst.high}
    if len(beaten_by):
        return entry | {"verdict": LOSES}
    if (measured["low"] > 0).all() and not lost:
        return entry | {"verdict": WINS}
    return entry | {"reason": "; ".join(lost) or "the interval holds zero"}


def _name(arm: str) -> str:
    return NAMES.get(arm, ARMS.get(arm, arm).lower())


def _heading(counts: dict[str, int], total: int) -> str:
    subject = "SAE features"
    for verdict, words in ((WINS, "beat"), (LOSES, "lose to")):
        if counts[verdict] == total:
            return f"{subject} {words} the best plain baseline" + (f" in all {total} comparisons" if total > 1 else "")
    if counts[OPEN] == total:
        return f"Whether {subject} beat the best plain baseline cannot be told here"
    parts = [f"{counts[WINS]} won", f"{counts[LOSES]} lost", f"{counts[OPEN]} undecided"]
    return f"{subject} against the best plain baseline: {', '.join(parts)}"


def _where(tables: Tables, entry: dict[str, Any]) -> str:
    return f"{tables.dataset(entry['dataset'])} ({tables.model(entry['model'])})"


def _clause(tables: Tables, entry: dict[str, Any]) -> str:
    where = f"on {_where(tables, entry)}"
    if entry["baseline"] is None:
        return f"{where} nothing can be told: {entry['reason']}"
    baseline, gap = _name(entry["baseline"]), entry["difference"]
    interval = f"95 % interval {signed(entry['low'])} to {signed(entry['high'])}"
    if entry["verdict"] == WINS:
        return f"{where} SAE features beat {baseline} by {gap:.3f} macro-F1 ({interval})"
    if entry["verdict"] == LOSES:
        return f"{where} SAE features lose to {baseline} by {-gap:.3f} macro-F1 ({interval})"
    why = "" if entry["reason"] == "the interval holds zero" else f", and {entry['reason']}"
    return f"{where} SAE features and {baseline} cannot be told apart ({signed(gap)} macro-F1, {interval}{why})"


def _summary(tables: Tables, found: list[dict[str, Any]], counts: dict[str, int]) -> list[str]:
    first = (
        f"Over {len(found)} pairs of dataset and model, SAE features beat the best plain baseline in {counts[WINS]}, "
        f"lose to it in {counts[LOSES]}, and cannot be told from it in {counts[OPEN]}, each by its own 95 % interval."
    )
    measured = sorted((entry for entry in found if entry["baseline"]), key=lambda entry: entry["difference"])
    if not measured:
        return [first]
    low, high = measured[0], measured[-1]
    return [
        first,
        f"The differences go from {signed(low['difference'])} macro-F1 on {_where(tables, low)} to "
        f"{signed(high['difference'])} on {_where(tables, high)}.",
    ]


def signed(value: float) -> str:
    """A difference with its sign; one that rounds to nothing has none."""
    text = f"{abs(value):.3f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "\N{MINUS SIGN}"
    return sign + text


# --- pooling, threshold and layer ----------------------------------------------------------------------------------


def settings(tables: Tables) -> Finding:
    title = "What pooling, threshold and layer do"
    cells = tables.pooled_cells()
    cells = cells[cells["arm"].isin(["sae", "hidden"]) & (cells["status"] == "ok")]
    arms = [arm for arm in ("sae", "hidden") if (cells["arm"] == arm).any()]
    if not arms:
        tried = tables.whole_cells()["arm"].isin(["sae", "hidden"]).any()
        return untold(title, "every probe on a model failed" if tried else "no model was run")
    effects = {arm: found for arm in arms if (found := _effects(cells[cells["arm"] == arm]))}
    if not effects:
        return untold(title, "every setting has a single value here, so nothing can be compared")
    sentences = ["All else equal, the mean macro-F1 goes from the worst value of each setting to the best as follows."]
    if tables.protocol != "strict":
        sentences.append("These are the paper protocol's scores, on one split.")
    points = [f"{ARMS[arm]}: {_effect_words(found)}" for arm, found in effects.items()]
    return told(_settings_title(effects), sentences, {"protocol": tables.protocol, "effects": effects}, points)


def _settings_title(effects: dict[str, dict[str, Any]]) -> str:
    """What each setting moves the leading arm by, the strongest first."""
    arm, found = next(iter(effects.items()))
    ordered = sorted(found.items(), key=lambda item: -item[1]["spread"])
    first, *others = [f"{setting} moves macro-F1 by {entry['spread']:.3f}" for setting, entry in ordered]
    rest = "".join(f", {words.replace('moves macro-F1 ', '')}" for words in others)
    return f"{ARMS[arm]}: {first}{rest}"


def _effects(cells: pd.DataFrame) -> dict[str, Any]:
    """For each setting with a choice: the mean score of each value, over the same other settings, and the spread."""
    found = {}
    for setting in SETTINGS:
        means, compared = _matched(cells, setting)
        if len(means) > 1:
            best, worst = max(means, key=lambda key: means[key]), min(means, key=lambda key: means[key])
            found[setting] = {
                "means": means,
                "best": best,
                "worst": worst,
                "spread": means[best] - means[worst],
                "compared": compared,
            }
    return found


def _matched(cells: pd.DataFrame, setting: str) -> tuple[dict[str, float], int]:
    """Mean macro-F1 of each value of a setting over the situations in which every value has a score.

    A situation is everything else that a cell depends on. For layers it is the depth within the model that is
    compared, because models differ in which layers they have.
    """
    cells = cells.assign(value=_depth(cells) if setting == "layer" else cells[setting].map(_value))
    situation = ["dataset", "model", "width", "pooling", "threshold", "seed", *([] if setting == "layer" else ["head"])]
    situation = [name for name in situation if name != setting]
    means = cells[cells["value"] != ""].groupby([*situation, "value"], dropna=False)["macro_f1"].mean()
    matched = means.unstack("value").dropna()
    if matched.empty or matched.shape[1] < 2:
        return {}, 0
    return {str(name): float(mean) for name, mean in matched.mean().items()}, len(matched)


def _value(value: object) -> str:
    if isinstance(value, float):
        return "values kept" if pd.isna(value) else f"binary at {value:g}"
    return str(value)


def _depth(cells: pd.DataFrame) -> pd.Series:
    """Where in its model a layer is, among those read; nowhere, if the model has but one."""
    layers = cells.groupby("model")["layer"]
    shallow, deep = layers.transform("min"), layers.transform("max")
    depth = pd.Series("middle", index=cells.index)
    depth = depth.mask(cells["layer"] == shallow, "shallowest").mask(cells["layer"] == deep, "deepest")
    return depth.mask(shallow == deep, "")


def _effect_words(effects: dict[str, Any]) -> str:
    """For each setting, its worst and its best value."""
    phrases = [
        f"{setting} {found['means'][found['worst']]:.3f} ({found['worst']}) to {found['means'][found['best']]:.3f} "
        f"({found['best']})"
        for setting, found in effects.items()
    ]
    return ", ".join(phrases)


# --- the paper's protocol ------------------------------------------------------------------------------------------


def optimism(tables: Tables) -> Finding:
    title = "How optimistic the paper's protocol is"
    missing = [protocol for protocol in ("paper", "strict") if protocol not in set(tables.arms["protocol"])]
    if missing:
        return untold(title, f"the {missing[0]} protocol was not run, and there is nothing to lay the other beside")
    gaps = {arm: found for arm in ("sae", "hidden", "tfidf") if (found := _gaps(tables, arm))}
    if not gaps:
        return untold(title, "no arm has a score under both protocols")
    leading = next(iter(gaps))
    values = [entry["gap"] for entry in gaps[leading]]
    mean = sum(values) / len(values)
    direction = "higher" if mean >= 0 else "lower"
    heading = f"The paper's protocol scores {_name(leading)} {abs(mean):.3f} macro-F1 {direction} than the strict one"
    over = f", {signed(min(values))} to {signed(max(values))} over {len(values)} pairs of dataset and model"
    first = (
        f"Choosing on the test part of a single split, it gives {_name(leading)} {signed(mean)} macro-F1 against the "
        f"strict protocol{over if len(values) > 1 else ''}."
    )
    last = _last_token(tables)
    verdicts = _verdicts(tables) if leading == "sae" else None
    numbers = {"gaps": gaps, "last_token": last, "verdicts": verdicts}
    return told(heading, [first, *_verdict_words(last, verdicts)], numbers)


def _verdict_words(last: dict[str, Any] | None, verdicts: dict[str, Any] | None) -> list[str]:
    worth = f" (worth {signed(last['cost'])})" if last else ""
    if verdicts:
        total, changed = verdicts["pairs"], verdicts["changed"]
        outcome = f"the verdict changes in {changed} of {total}" if changed else "no verdict changes"
        return [
            f"By it SAE features beat last-token hidden states in {verdicts['paper']['wins']} of {total} and lose in "
            f"{verdicts['paper']['losses']}; under strict, against hidden states free to choose their pooling{worth}, they "
            f"win {verdicts['strict']['wins']} and lose {verdicts['strict']['losses']}: {outcome}."
        ]
    if last:
        return [
            f"Under strict, hidden states free to choose their pooling gain {signed(last['cost'])} over the last token."
        ]
    return []


def _gaps(tables: Tables, arm: str) -> list[dict[str, Any]]:
    """Paper score less strict score, for every dataset and model that has both."""
    keys = ["dataset", "model"]
    both = [
        rows[(rows["arm"] == arm) & (rows["status"] == "ok")][[*keys, "macro_f1"]]
        for rows in (tables.arm_rows("paper"), tables.arm_rows("strict"))
    ]
    merged = both[0].merge(both[1], on=keys, suffixes=("_paper", "_strict")).sort_values(keys)
    return [
        {
            "dataset": row.dataset,
            "model": row.model,
            "paper": row.macro_f1_paper,
            "strict": row.macro_f1_strict,
            "gap": row.macro_f1_paper - row.macro_f1_strict,
        }
        for row in rows_of(merged)
    ]


def _last_token(tables: Tables) -> dict[str, Any] | None:
    """What hidden states lose under strict where only the last token may be read, as in the paper's baseline."""
    rows = tables.arm_rows("strict")
    rows = rows[rows["status"] == "ok"]
    costs = []
    for _, pair in groups_of(rows[rows["arm"].isin(["hidden", "hidden-last"])], ["dataset", "model"]):
        scores = dict(zip(pair["arm"], pair["macro_f1"], strict=True))
        if len(scores) == 2:
            costs.append(scores["hidden"] - scores["hidden-last"])
    return {"cost": sum(costs) / len(costs), "pairs": len(costs)} if costs else None


def _verdicts(tables: Tables) -> dict[str, Any] | None:
    """SAE features against hidden states, as the paper compares them and as the strict protocol does."""
    paper = {_pair(entry): entry for entry in comparisons(tables, "paper", ("hidden-last",)) if entry["baseline"]}
    strict = {_pair(entry): entry for entry in comparisons(tables, "strict", ("hidden",)) if entry["baseline"]}
    both = sorted(paper.keys() & strict.keys())
    if not both:
        return None
    counts = {
        name: {
            "wins": sum(side[pair]["verdict"] == WINS for pair in both),
            "losses": sum(side[pair]["verdict"] == LOSES for pair in both),
        }
        for name, side in (("paper", paper), ("strict", strict))
    }
    changed = sum(paper[pair]["verdict"] != strict[pair]["verdict"] for pair in both)
    return {"pairs": len(both), "changed": changed, **counts}


def _pair(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["dataset"], entry["model"]
