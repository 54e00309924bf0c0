"""What a dataset gives away: copies across its splits, and shortcuts to its labels.

A classifier may score well for a reason that has nothing to do with what it reads. Copies of test examples in the training
part are remembered, not understood; and a word, a length, or where a text is from may stand for its label. These checks
look at the dataset table alone, before any model is asked, so what they find concerns every arm alike.

Each check has a `title`, a `severity` ("fine", "look" or "leak"; None where it does not apply), a `reason` in one
sentence, and the `numbers` behind it (None where there are none). A record holds ids, labels, names of subsets and one
word, and nothing else of what examples say.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.stats.contingency import association

from tessera import arms, metrics
from tessera.arms import Arm
from tessera.examples import Table
from tessera.files import write_json
from tessera.near_copies import near
from tessera.protocols import Probe, Result, strict
from tessera.solvers import Fit, NotConverged, multinomial
from tessera.splits import Split, paper_splits, strict_splits

Array = npt.NDArray[Any]
Check = dict[str, Any]

FINE, LOOK, LEAK = "fine", "look", "leak"

# Copies of one test example in a hundred move accuracy by a point at most. Five points can turn the order of arms around.
LOOK_COPIES, LEAK_COPIES = 0.01, 0.05
# How far a shortcut goes from what guessing is worth to what the best shortcut of its kind could be. From a third on, a good
# score may owe a good part to it; at nine tenths it leaves nothing else to learn.
LOOK_WAY, LEAK_WAY = 1 / 3, 0.9
# Cramér's V: Cohen's medium effect for two labels; and where the subset is nearly the label.
LOOK_V, LEAK_V = 0.3, 0.8
# With nine examples in ten of one label, accuracy says nothing, and scores hang on few examples of the others.
LOOK_LABEL = 0.9
# Ten points of macro-F1 are beyond the luck of which examples are tested, in all but tiny subsets.
LOOK_DROP = 0.1

# These fits are compared with each other alone, so that none of them needs a C of its own.
C = 1.0
MOST_SUBSETS = 8
SHOWN = 5  # pairs of copies a record names for each protocol
LONGEST_WORD = 40  # so that a text that is a single word stays out of the record


def write(table: Table, path: Path | str, *, protocols: Sequence[str], strict_settings: Mapping[str, Any]) -> None:
    """Check a dataset, and write the record of it as JSON."""
    write_json(path, check(table, protocols=protocols, strict_settings=strict_settings))


def check(table: Table, *, protocols: Sequence[str], strict_settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a dataset: the worst severity, and every check by its name.

    Copies are looked for across the splits of the `protocols` that are run; shortcuts are always scored on the splits of
    `strict_settings`.
    """
    codes, labels = _codes(table.labels)
    of_strict = _strict_splits(codes, table, strict_settings)
    splits = {name: paper_splits(codes, table.groups) if name == "paper" else of_strict for name in protocols}
    checks = _copies(table, codes, len(labels), splits)
    checks |= _shortcuts(table, codes, labels, of_strict, strict_settings)
    checks |= _subsets(table, codes, labels, of_strict, strict_settings)
    found = {entry["severity"] for entry in checks.values()}
    worst = next(severity for severity in (LEAK, LOOK, FINE, None) if severity in found)
    return {"severity": worst, "checks": checks}


def _strict_splits(codes: Array, table: Table, settings: Mapping[str, Any]) -> list[Split]:
    keys = ("seeds", "test_size", "inner_folds")
    return strict_splits(codes, table.groups, **{key: settings[key] for key in keys})


def _codes(names: Array) -> tuple[Array, list[str]]:
    """Each name's position among the sorted ones, and these."""
    known = sorted(set(names))
    place = {name: code for code, name in enumerate(known)}
    return np.array([place[name] for name in names], np.intp), known


def _entry(title: str, severity: str | None, reason: str, numbers: dict[str, Any] | None) -> Check:
    return {"title": title, "severity": severity, "reason": reason, "numbers": numbers}


def _grade(value: float, look: float, leak: float = np.inf) -> str:
    return LEAK if value >= leak else LOOK if value >= look else FINE


# --- copies across the splits --------------------------------------------------------------------------------------

EXACT, NEAR = "Copies across the splits", "Near copies across the splits"


def folded(text: str) -> str:
    """What a text says to a reader: without regard to case, Unicode spelling and white space.

    The dataset stage groups by the same rule. It is written here once more because that stage is what is checked.
    """
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(normal.split())


def _copies(table: Table, codes: Array, n_classes: int, splits: Mapping[str, list[Split]]) -> dict[str, Check]:
    contents: dict[str | bytes, int] = {}
    keys: Sequence[str | bytes] = table.images or [] if table.texts is None else [folded(text) for text in table.texts]
    content_of = np.array([contents.setdefault(key, len(contents)) for key in keys])
    same = sparse.eye_array(len(contents), format="csr")
    exact = _across(same, content_of, table.ids, codes, n_classes, splits)
    checks = {"exact_duplicates": _copied(EXACT, "a copy", exact, promised=("strict",))}
    if table.texts is None:
        return checks | {"near_duplicates": _entry(NEAR, None, "Images are compared byte by byte alone.", None)}
    similar = _across(near([str(key) for key in contents]), content_of, table.ids, codes, n_classes, splits)
    return checks | {"near_duplicates": _copied(NEAR, "a near copy", similar)}


def _across(
    alike: sparse.csr_array,
    content_of: Array,
    ids: list[str],
    codes: Array,
    n_classes: int,
    splits: Mapping[str, list[Split]],
) -> dict[str, Any]:
    """By protocol: for each split, how many test examples have their like in the training part; and a few such pairs.

    `alike` holds the similarity of contents that are alike. An example counts under `same_label` if some of its copies have
    its label, and under `other_label` if some have another.
    """
    numbers: dict[str, Any] = {}
    for name, of_protocol in splits.items():
        counts: list[dict[str, Any]] = []
        pairs: list[dict[str, Any]] = []
        for split in of_protocol:
            if split.problem:
                counts.append({"seed": split.seed, "problem": split.problem})
                continue
            found, own, other = _met(alike, content_of, codes, n_classes, split)
            tested = np.flatnonzero(split.test)
            counts.append(
                {
                    "seed": split.seed,
                    "test": len(tested),
                    "found": int(found.sum()),
                    "same_label": int(own.sum()),
                    "other_label": int(other.sum()),
                }
            )
            if not pairs:
                pairs = [_pair(alike, content_of, ids, split, row) for row in tested[found][:SHOWN]]
        numbers[name] = {"splits": counts, "examples": pairs}
    return numbers


def _met(
    alike: sparse.csr_array, content_of: Array, codes: Array, n_classes: int, split: Split
) -> tuple[Array, Array, Array]:
    """For each test example, whether any training example is its like, any of its label, and any of another."""
    trained = np.flatnonzero(split.train)
    of_label = sparse.csr_array(
        (np.ones(len(trained)), (content_of[trained], codes[trained])), shape=(alike.shape[0], n_classes)
    )
    met: Any = (alike > 0).astype(np.float64) @ of_label
    counts = met[content_of[split.test]].toarray()
    own = counts[np.arange(len(counts)), codes[split.test]]
    every = counts.sum(axis=1)
    return every > 0, own > 0, every > own


def _pair(alike: sparse.csr_array, content_of: Array, ids: list[str], split: Split, row: int) -> dict[str, Any]:
    """A test example and the training example that is likest to it."""
    trained = np.flatnonzero(split.train)
    similarity = alike[[content_of[row]]].toarray().ravel()[content_of[trained]]
    best = int(similarity.argmax())
    return {"test": ids[row], "train": ids[trained[best]], "similarity": float(similarity[best])}


def _copied(title: str, what: str, numbers: dict[str, Any], *, promised: Sequence[str] = ()) -> Check:
    """The check that says what was found in the worst split; of equal ones, the first.

    A single find under one of the protocols that have `promised` there is none is worse than any number under the others.
    """
    usable = [(name, split) for name, found in numbers.items() for split in found["splits"] if "problem" not in split]
    if not usable:
        problems = [split["problem"] for found in numbers.values() for split in found["splits"]]
        return _entry(title, None, _no_split(problems[0] if problems else "no protocol is run"), numbers)
    shares = [split["found"] / split["test"] for _, split in usable]
    broken = [name in promised and split["found"] > 0 for name, split in usable]
    place = max(range(len(usable)), key=lambda place: (broken[place], shares[place]))
    name, worst = usable[place]
    if not worst["found"]:
        return _entry(title, FINE, f"No test example has {what} in the training part.", numbers)
    which = "the paper's split" if name == "paper" else f"the strict split of seed {worst['seed']}"
    said = f"In {which}, {worst['found']} of {worst['test']} test examples have {what} in the training part"
    if broken[place]:
        return _entry(title, LEAK, f"{said}, though these splits are meant to keep copies together.", numbers)
    severity = _grade(shares[place], LOOK_COPIES, LEAK_COPIES)
    meaning = {
        FINE: "too few to move accuracy by a whole point",
        LOOK: f"so accuracy may be up to {shares[place]:.2f} too high",
        LEAK: "so scores show what a classifier remembers as much as what it has learned",
    }
    return _entry(title, severity, f"{said}, {meaning[severity]}.", numbers)


def _no_split(problem: str) -> str:
    return f"There is no split to look at: {problem}."


# --- shortcuts to the label ----------------------------------------------------------------------------------------

MAJORITY, LENGTH, KEYWORD = "The most frequent label", "The length of a text", "The best single word"


def _shortcuts(
    table: Table, codes: Array, labels: list[str], splits: list[Split], settings: Mapping[str, Any]
) -> dict[str, Check]:
    """What labels can be told from without reading: nothing at all, the length, or one word."""
    n_classes = len(labels)
    nothing = _probed(arms.on_text("majority", table), codes, n_classes, splits, settings)
    checks = {"majority": _majority(codes, labels, nothing)}
    if table.texts is None:
        for name, title in (("length", LENGTH), ("keyword", KEYWORD)):
            checks[name] = _entry(title, None, "An image has no words.", None)
        return checks
    if isinstance(nothing, str):
        return checks | {
            "length": _entry(LENGTH, None, nothing, None),
            "keyword": _entry(KEYWORD, None, nothing, None),
        }
    length = _probed(arms.on_text("length", table), codes, n_classes, splits, settings)
    at_random = _at_random(nothing, n_classes)
    checks["length"] = _entry(LENGTH, None, length, None) if isinstance(length, str) else _length(length, at_random)
    # A word names two labels at most, which of many is no better than naming one.
    checks["keyword"] = _keyword(table.texts, codes, labels, splits, at_random if n_classes == 2 else nothing)
    return checks


def _probed(arm: Arm, codes: Array, n_classes: int, splits: list[Split], settings: Mapping[str, Any]) -> float | str:
    """Mean macro-F1 of an arm under the strict protocol, as in the tables; or why there is none."""
    results = Probe(arm, strict(**settings), codes, n_classes).results(splits)
    scores = [
        metrics.macro_f1(codes[split.test], result.predicted, n_classes)
        for split, result in zip(splits, results, strict=True)
        if isinstance(result, Result)
    ]
    if scores:
        return float(np.mean(scores))
    return next(f"There is no score: {result.reason}." for result in results if not isinstance(result, Result))


def _majority(codes: Array, labels: list[str], nothing: float | str) -> Check:
    shares = np.bincount(codes) / len(codes)
    largest = int(shares.argmax())
    numbers = {
        "macro_f1": None if isinstance(nothing, str) else nothing,
        "label": labels[largest],
        "share": float(shares[largest]),
    }
    severity = _grade(shares[largest], LOOK_LABEL)
    said = (
        f"Always guessing the most frequent label, '{labels[largest]}', is right for {shares[largest]:.0%} of examples"
    )
    meaning = {FINE: "", LOOK: ", so accuracy is high for knowing nothing, and macro-F1 hangs on the few others"}
    return _entry(MAJORITY, severity, f"{said}{meaning[severity]}.", numbers)


def _at_random(majority: float, n_classes: int) -> float:
    """What knowing nothing is worth: always naming one label, or all of them at random in their proportions."""
    return max(majority, 1 / n_classes)


def _length(score: float, nothing: float) -> Check:
    severity, numbers = _way(score, nothing)
    said = f"The length of a text alone {SAYS[severity]}"
    return _entry(LENGTH, severity, f"{said} (macro-F1 {score:.3f}; knowing nothing, {nothing:.3f}).", numbers)


def _way(score: float, nothing: float, best: float = 1.0) -> tuple[str, dict[str, float]]:
    """How far a score goes from what knowing nothing is worth to the best there could be, and what to think of it."""
    way = (score - nothing) / (best - nothing) if best > nothing else 0.0
    return _grade(way, LOOK_WAY, LEAK_WAY), {"macro_f1": score, "nothing": nothing, "best": best, "way": way}


SAYS = {
    FINE: "says little about the label",
    LOOK: "says much about the label, and a good score may owe a good part to it",
    LEAK: "all but gives the label away",
}


def _keyword(texts: list[str], codes: Array, labels: list[str], splits: list[Split], nothing: float) -> Check:
    """The word that is chosen in most splits, and what the words chosen on the training parts score on the test parts."""
    words = list(dict.fromkeys(word for text in texts for (word,) in arms.words(text)))
    if not words:
        return _entry(KEYWORD, None, "No text has a word of two letters or more.", None)
    present = arms.count(texts, arms.words) > 0
    chosen: list[tuple[int, int]] = []
    scores, ceilings = [], []
    for split in splits:
        if split.problem:
            continue
        word, with_it, without = best_word(present[split.train], codes[split.train], len(labels))
        has = present[split.test][:, [word]].toarray().ravel()
        truth = codes[split.test]
        scores.append(metrics.macro_f1(truth, np.where(has, with_it, without), len(labels)))
        ceilings.append(_ceiling(truth, len(labels)))
        chosen.append((word, with_it))
    (word, label), times = Counter(chosen).most_common(1)[0]
    shown = words[word]
    if len(shown) > LONGEST_WORD:
        shown = shown[: LONGEST_WORD - 1] + "\N{HORIZONTAL ELLIPSIS}"
    score, best = float(np.mean(scores)), float(np.mean(ceilings))
    severity, numbers = _way(score, nothing, best)
    named = {"word": shown, "label": labels[label], "chosen": times, "of": len(chosen)}
    said = f"The word '{shown}', a sign of '{labels[label]}', {SAYS[severity]}"
    compared = f"macro-F1 {score:.3f}; knowing nothing, {nothing:.3f}; the best a word could do, {best:.3f}"
    return _entry(KEYWORD, severity, f"{said} ({compared}).", numbers | named)


def best_word(present: sparse.csr_matrix, codes: Array, n_classes: int) -> tuple[int, int, int]:
    """The word that tells labels best by being there: its column, the label of texts that have it, and of those that lack it.

    The best is that of the highest macro-F1 on these examples; of equal ones, the first of the first label.
    """
    n = len(codes)
    member = sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(n_classes, n))
    having = np.asarray((member @ present.astype(np.float64)).todense())
    totals = np.bincount(codes, minlength=n_classes)[:, None]
    texts_with = having.sum(axis=0)
    # Labels x words: the F1 of a label that all texts with the word are given, or all texts without it.
    with_it = np.where(texts_with > 0, 2 * having / (texts_with + totals), -1)
    without = 2 * (totals - having) / (n - texts_with + totals)
    best: tuple[float, int, int, int] = (-1.0, 0, 0, 0)
    for label in range(n_classes):
        others = np.delete(np.arange(n_classes), label)
        rest = without[others]
        f1 = with_it[label] + rest.max(axis=0)
        word = int(f1.argmax())
        if f1[word] > best[0]:
            best = float(f1[word]), word, label, int(others[rest[:, word].argmax()])
    return best[1:]


def _ceiling(truth: Array, n_classes: int) -> float:
    """The macro-F1 of a word that stands in all texts of one label and in no other, for the label where that is most."""
    counts = np.bincount(truth, minlength=n_classes)
    scores = []
    for label in range(n_classes):
        other = int(np.where(np.arange(n_classes) == label, -1, counts).argmax())
        scores.append(metrics.macro_f1(truth, np.where(truth == label, label, other), n_classes))
    return max(scores)


# --- subsets -------------------------------------------------------------------------------------------------------

ASSOCIATION, SEPARABLE, LEFT_OUT = "Labels by subset", "Subsets told from the text", "A subset left out of the training"


def _subsets(
    table: Table, codes: Array, labels: list[str], splits: list[Split], settings: Mapping[str, Any]
) -> dict[str, Check]:
    """Whether the subset stands for the label, can be told from the text, and holds what other subsets teach."""
    subset_codes, subsets = _codes(table.subsets)
    titles = {"subset": ASSOCIATION, "subset_from_text": SEPARABLE, "left_out": LEFT_OUT}
    if len(subsets) < 2:
        return {name: _entry(title, None, "The dataset has a single subset.", None) for name, title in titles.items()}
    associated = _associated(codes, labels, subset_codes, subsets)
    if table.texts is None:
        none = {name: _entry(title, None, "An image has no words.", None) for name, title in titles.items()}
        return none | {"subset": associated}
    tfidf = arms.on_text("tfidf-word", table)
    of_subsets = _strict_splits(subset_codes, table, settings)
    return {
        "subset": associated,
        "subset_from_text": _separable(tfidf, subset_codes, len(subsets), of_subsets, associated),
        "left_out": _left_out(tfidf, codes, len(labels), subset_codes, subsets, splits),
    }


def _associated(codes: Array, labels: list[str], subset_codes: Array, subsets: list[str]) -> Check:
    counts = np.zeros((len(subsets), len(labels)), np.intp)
    np.add.at(counts, (subset_codes, codes), 1)
    v = float(association(counts, method="cramer"))
    shares = counts / counts.sum(axis=1, keepdims=True)
    by_subset = {
        subset: dict(zip(labels, of_subset, strict=True))
        for subset, of_subset in zip(subsets, shares.tolist(), strict=True)
    }
    severity = _grade(v, LOOK_V, LEAK_V)
    said = {
        FINE: "Labels are shared out alike over the subsets, or nearly so",
        LOOK: "Labels are shared out unlike over the subsets, so that where an example is from helps to guess its label",
        LEAK: "Where an example is from all but gives its label away",
    }
    numbers = {"cramers_v": v, "label_shares": by_subset}
    return _entry(ASSOCIATION, severity, f"{said[severity]} (Cramér's V {v:.2f}).", numbers)


def _predicted(arm: Arm, codes: Array, n_classes: int, train: Array) -> Array | str:
    """What a classifier that is fitted to some examples says of all; or why there is none."""
    if missing := n_classes - len(np.unique(codes[train])):
        return f"{missing} of {n_classes} labels are not in the training part"
    X = arm.features(train)
    everyone = np.ones((1, int(train.sum())), bool)
    (model,) = multinomial(X[train], codes[train], n_classes, everyone, [Fit(0, C)], scaling=arm.scalings[0])
    return model.why if isinstance(model, NotConverged) else model.predict(X)


def _separable(arm: Arm, codes: Array, n_classes: int, splits: list[Split], associated: Check) -> Check:
    """How well words tell subsets apart, which matters where subsets differ in their labels."""
    scores, nothing, problems = [], [], []
    for split in splits:
        predicted: Array | str = split.problem or _predicted(arm, codes, n_classes, split.train)
        if isinstance(predicted, str):
            problems.append(predicted)
            continue
        truth = codes[split.test]
        most = np.bincount(codes[split.train]).argmax()
        scores.append(metrics.macro_f1(truth, predicted[split.test], n_classes))
        nothing.append(metrics.macro_f1(truth, np.full(len(truth), most), n_classes))
    if not scores:
        return _entry(SEPARABLE, None, f"There is no score: {problems[0]}.", None)
    score, guess = float(np.mean(scores)), _at_random(float(np.mean(nothing)), n_classes)
    way, numbers = _way(score, guess)
    told = way != FINE
    severity = LOOK if told and associated["severity"] != FINE else FINE
    said = f"Words {'tell' if told else 'hardly tell'} which subset a text is from"
    if severity == LOOK:
        said += ", and labels differ between subsets, so a classifier may learn the subset in place of the label"
    elif told:
        said += ", but labels do not depend on it, so nothing is gained by that"
    return _entry(SEPARABLE, severity, f"{said} (macro-F1 {score:.3f}; knowing nothing, {guess:.3f}).", numbers)


def _left_out(
    arm: Arm, codes: Array, n_classes: int, subset_codes: Array, subsets: list[str], splits: list[Split]
) -> Check:
    """For each of the largest subsets, the score on its test examples with and without its examples in the training part.

    Both keep to the strict splits, so that the rest of a group is never in the training part; and both are scored on the
    same examples.
    """
    usable = [split for split in splits if not split.problem]
    if not usable:
        return _entry(LEFT_OUT, None, _no_split(splits[0].problem), None)
    largest = np.argsort(-np.bincount(subset_codes), kind="stable")[:MOST_SUBSETS]
    with_it: dict[int, list[float]] = {int(subset): [] for subset in largest}
    without: dict[int, list[float]] = {int(subset): [] for subset in largest}
    problems: dict[int, str] = {}
    for split in usable:
        seen = _predicted(arm, codes, n_classes, split.train)
        for subset in with_it:
            here = split.test & (subset_codes == subset)
            unseen = _predicted(arm, codes, n_classes, split.train & (subset_codes != subset))
            for predicted, scores in ((seen, with_it), (unseen, without)):
                if isinstance(predicted, str):
                    problems.setdefault(subset, predicted)
                elif here.any():
                    scores[subset].append(metrics.macro_f1(codes[here], predicted[here], n_classes))
    return _carried_over(with_it, without, problems, subsets)


def _carried_over(
    with_it: dict[int, list[float]], without: dict[int, list[float]], problems: dict[int, str], subsets: list[str]
) -> Check:
    by_subset: dict[str, Any] = {}
    drops: dict[int, tuple[float, float]] = {}
    for subset in sorted(with_it):
        if with_it[subset] and len(with_it[subset]) == len(without[subset]):
            drops[subset] = float(np.mean(with_it[subset])), float(np.mean(without[subset]))
            by_subset[subsets[subset]] = {"in_distribution": drops[subset][0], "left_out": drops[subset][1]}
        else:
            reason = problems.get(subset, "no example of it is in a test part")
            by_subset[subsets[subset]] = {"in_distribution": None, "left_out": None, "reason": reason}
    numbers = {"subsets": by_subset, "not_shown": len(subsets) - len(by_subset)}
    if not drops:
        return _entry(
            LEFT_OUT, None, f"There is no score: {problems.get(min(with_it), 'no example is tested')}.", numbers
        )
    seen, unseen = (float(np.mean(scores)) for scores in zip(*drops.values(), strict=True))
    numbers |= {"in_distribution": seen, "left_out": unseen}
    severity = _grade(seen - unseen, LOOK_DROP)
    said = f"Without examples of a subset in the training part, macro-F1 on it is {unseen:.3f}; with them, {seen:.3f}"
    meaning = {FINE: "what is learned carries over", LOOK: "much of what is learned holds within a subset alone"}
    return _entry(LEFT_OUT, severity, f"{said}: {meaning[severity]}.", numbers)
