"""Protocols: the published one against a plain scikit-learn script, the strict one against leaks."""

import json
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.multiclass import OneVsRestClassifier

from tessera import arms, probes, protocols, solvers
from tessera.errors import UserError
from tessera.examples import Table
from tessera.protocols import CELLS, PREDICTIONS, Failed, Probe, Result

STRICT = {"seeds": 2, "test_size": 0.25, "inner_folds": 3, "c": [1.0, 0.01]}
IDENTITY = {
    "model": "small", "dataset": "toy", "head": "layer-1", "arm": "sae", "layer": 1, "width": 30, "pooling": "sum"
}  # fmt: skip


def world(n=160, d=30, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    X = rng.gamma(1.0, 1.0, (n, d)) * (rng.random((n, d)) < 0.3)
    X[np.arange(n), codes] += rng.gamma(1.5, 1.0, n)
    return X.astype(np.float32), codes


def table(codes, groups=None, subsets=None, texts=None):
    n = len(codes)
    labels = np.array([f"label {code}" for code in codes], dtype=object)
    subsets = np.array(subsets if subsets is not None else ["all"] * n, dtype=object)
    groups = np.arange(n) if groups is None else groups
    texts = texts or [f"text {code}" for code in codes]
    return Table([f"id-{row}" for row in range(n)], texts, None, labels, subsets, [None] * n, groups)


NO_REGIMES = {"train_shares": [], "label_noise": [], "imbalance": [], "shuffled": False}
SEARCH = {
    "thresholds": [None], "classifiers": ["l2"], "l1_penalties": [0.5, 0.1], "sparse_k": [], "regimes": NO_REGIMES,
    "curve_poolings": None, "alone": False,
}  # fmt: skip


def run(X, codes, *, which=("strict",), settings=STRICT, search=None, **columns):
    return protocols.run(
        X,
        table(codes, **columns),
        identity=IDENTITY,
        search=SEARCH | (search or {}),
        protocols=which,
        strict_settings=settings,
    )


# --- the published protocol ----------------------------------------------------------------------------------------


def plain_script(X, labels):
    """The published procedure as anyone would write it with scikit-learn."""
    X_train, X_test, y_train, y_test = train_test_split(
        X.astype(np.float64), labels, test_size=0.2, random_state=42, stratify=labels
    )
    regression = LogisticRegression(solver="lbfgs", max_iter=5000)
    one_vs_rest = len(set(labels)) > 2
    grid = {"estimator__C" if one_vs_rest else "C": [0.001, 0.01, 0.1, 1.0]}
    search = GridSearchCV(OneVsRestClassifier(regression) if one_vs_rest else regression, grid, scoring="accuracy")
    search.fit(X_train, y_train)
    predicted = search.predict(X_test)
    return {
        "c": next(iter(search.best_params_.values())),
        "validation": search.best_score_,
        "accuracy": accuracy_score(y_test, predicted),
        "macro_f1": f1_score(y_test, predicted, average="macro"),
    }, search.predict_proba(X_test)


SHAPES = {"two classes": (200, 25, 2), "four classes": (240, 30, 4), "more features than examples": (90, 200, 3)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_paper_is_what_a_plain_scikit_learn_script_gives(shape, form):
    X, codes = world(*SHAPES[shape], seed=3)
    cells, predictions = run(form(X), codes, which=["paper"])
    expected, probabilities = plain_script(X, table(codes).labels.tolist())
    (cell,) = cells.to_pylist()
    assert {name: cell[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert cell["seed"] == 42
    # The script's test part is shuffled, so the rows are compared as sets of rows.
    found = np.array(predictions["scores"].to_pylist())
    np.testing.assert_allclose(found[np.lexsort(found.T)], probabilities[np.lexsort(probabilities.T)], atol=1e-5)


# --- the strict protocol --------------------------------------------------------------------------------------------


def test_all_arms_of_a_dataset_are_tested_on_the_same_examples():
    X, codes = world()
    sae, hidden = run(sparse.csr_matrix(X), codes)[1], run(X[:, :8], codes)[1]
    words = run(arms.on_text("tfidf-char", table(codes)), codes)[1]
    for other in (hidden, words):
        assert sae.select(["protocol", "seed", "example", "label"]) == other.select(
            ["protocol", "seed", "example", "label"]
        )


# --- leaks ---------------------------------------------------------------------------------------------------------


def one_split(codes, **settings):
    protocol = protocols.strict(**(STRICT | {"seeds": 1} | settings))
    return protocol, protocol.splits(codes, np.arange(len(codes)))


def probe(arm, codes, **settings):
    protocol, splits = one_split(codes, **settings)
    (result,) = Probe(arm, protocol, codes, int(codes.max()) + 1).results(splits)
    assert isinstance(result, Result)
    return result, splits[0]


def test_a_feature_that_tells_the_label_in_the_test_part_alone_is_worth_nothing():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 400)
    X = rng.standard_normal((400, 10)).astype(np.float32)
    _, (split,) = one_split(codes)
    planted = np.where(split.train, rng.integers(0, 2, 400), codes)[:, None].astype(np.float32)
    result, _ = probe(arms.given(np.hstack([X, 5 * planted]), None), codes)
    found = np.mean(result.predicted == codes[~split.train])
    assert 0.35 < found < 0.65
    # The same feature where training sees it, so that the test could fail.
    everywhere, _ = probe(arms.given(np.hstack([X, 5 * codes[:, None].astype(np.float32)]), None), codes)
    assert np.mean(everywhere.predicted == codes[~split.train]) == 1


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_what_the_test_part_holds_changes_neither_choice_nor_model(form):
    X, codes = world(240, seed=5)
    result, split = probe(arms.given(form(X), None), codes)
    spoilt = X.copy()
    spoilt[~split.train] = 100 * np.random.default_rng(1).random((int((~split.train).sum()), X.shape[1]))
    other, _ = probe(arms.given(form(spoilt), None), codes)
    assert other.choice.columns["c"] == result.choice.columns["c"]
    assert other.choice.validation == pytest.approx(result.choice.validation, abs=1e-12)

    class ScaledByEverything:
        """What a careless program does, to show that it would be caught."""

        classifier, scalings, fitted = "l2", ["all alike"], False

        def __init__(self, features):
            self.X = form((features / features.std(axis=0)).astype(np.float32))

        def features(self, train):
            return self.X

    careless, spoilt_too = (probe(ScaledByEverything(features), codes)[0] for features in (X, spoilt))
    assert careless.choice.validation != pytest.approx(spoilt_too.choice.validation, abs=1e-12)


def test_an_arm_that_is_fitted_is_fitted_to_each_inner_fold_and_to_the_training_part():
    X, codes = world(120)
    seen = []

    class Watched:
        classifier, scalings, fitted = "l2", ["each feature"], True

        def features(self, train):
            seen.append(train.copy())
            return X

    _, split = probe(Watched(), codes)
    wanted = [fit for fit, _ in split.inner()] + [split.train]
    for part in wanted:
        assert any(np.array_equal(part, train) for train in seen)
    for train in seen:
        assert not train[~split.train].any()


def test_c_and_scaling_are_the_best_by_mean_inner_macro_f1_and_of_equal_ones_the_first():
    X, codes = world(200, seed=7)
    result, split = probe(arms.given(X, None), codes, c=[10.0, 0.01, 0.1, 1.0])
    means = {}
    for c, scaling in product((0.01, 0.1, 1.0, 10.0), ("each feature", "all alike")):
        scores = []
        for fit, held_out in split.inner():
            part = np.ones((1, fit.sum()), dtype=bool)
            fits = [solvers.Fit(0, c)]
            (model,) = solvers.multinomial(X[fit], codes[fit], 3, part, fits, scaling=scaling, tolerance=1e-9)
            scores.append(f1_score(codes[held_out], model.predict(X[held_out]), average="macro"))
        means[c, scaling] = np.mean(scores)
    assert result.choice.validation == pytest.approx(max(means.values()), abs=0.01)
    assert means[result.choice.value, result.choice.grid.settings] == pytest.approx(max(means.values()), abs=0.01)
    constant = np.repeat([0.0, 1.0], 100)[:, None].astype(np.float32)
    tied, _ = probe(arms.given(constant, None), np.repeat([0, 1], 100), c=[10.0, 0.01, 0.1, 1.0])
    assert (tied.choice.value, tied.choice.grid.settings) == (0.01, "each feature")


# --- cells that cannot be computed ---------------------------------------------------------------------------------


def reasons(cells):
    return {row["reason"] for row in cells.to_pylist() if row["status"] == "failed"}


@pytest.mark.parametrize("which", ["paper", "strict"])
def test_features_that_are_not_finite_or_do_not_vary_are_failed_cells(which):
    X, codes = world()
    broken = X.copy()
    broken[3, 4], broken[7, 1] = np.nan, np.inf
    for form in (np.asarray, sparse.csr_matrix):
        assert reasons(run(form(broken), codes, which=[which])[0]) == {"2 feature values are not finite"}
        still = np.zeros_like(X)
        assert reasons(run(form(still), codes, which=[which])[0]) == {"no feature varies in the training part"}
    assert reasons(run(np.empty((160, 0), np.float32), codes, which=[which])[0])


def test_a_fit_that_does_not_converge_is_a_failed_cell_and_the_others_go_on(monkeypatch):
    X, codes = world(seed=8)
    multinomial = solvers.multinomial

    def impatient(*arguments, scaling):
        return multinomial(*arguments, scaling=scaling, steps=6)

    monkeypatch.setattr(solvers, "multinomial", impatient)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cells, predictions = run(X, codes, which=["strict", "paper"], settings=STRICT | {"c": [1e-4, 50.0]})
    failed = [row for row in cells.to_pylist() if row["protocol"] == "strict"]
    assert {row["status"] for row in failed} == {"failed"}
    assert all("C = 50 on an inner fold: not done after 6 steps" in row["reason"] for row in failed)
    assert all(row["macro_f1"] is None and row["n_train"] == 120 for row in failed)
    assert set(predictions["protocol"].to_pylist()) == {"paper"}


def test_a_bug_is_not_taken_for_a_failed_cell(monkeypatch):
    X, codes = world()
    monkeypatch.setattr(solvers, "multinomial", lambda *_, scaling: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(X, codes)


def test_features_of_another_dataset_are_refused():
    X, codes = world()
    with pytest.raises(UserError, match="159 rows of features for 160 examples"):
        run(X[:-1], codes)


# --- cells and predictions -----------------------------------------------------------------------------------------


def test_there_is_a_cell_for_each_threshold_protocol_seed_and_subset():
    X, codes = world()
    subsets = np.where(np.arange(160) % 4 == 0, "de", "en")
    cells, predictions = run(
        sparse.csr_matrix(X), codes, which=["paper", "strict"], search={"thresholds": [None, 1.0]}, subsets=subsets
    )
    assert cells.schema.equals(CELLS)
    rows = cells.to_pylist()
    keys = {(row["threshold"], row["protocol"], row["seed"], row["subset"]) for row in rows}
    seeds = [("paper", 42), ("strict", 0), ("strict", 1)]
    assert keys == {(t, *seed, s) for t in (None, 1.0) for seed in seeds for s in ("all", "de", "en")}
    assert len(rows) == len(keys)
    for row in rows:
        assert {name: row[name] for name in IDENTITY} == IDENTITY
        assert (row["status"], row["reason"], row["classifier"], row["n_features"]) == ("ok", "", "l2", 30)
    by_subset = {row["subset"]: row for row in rows if row["seed"] == 42 and row["threshold"] is None}
    assert by_subset["de"]["n_test"] + by_subset["en"]["n_test"] == by_subset["all"]["n_test"] == 32
    right = sum(by_subset[subset]["accuracy"] * by_subset[subset]["n_test"] for subset in ("de", "en"))
    assert right == pytest.approx(by_subset["all"]["accuracy"] * 32)
    assert predictions.num_rows == sum(row["n_test"] for row in rows if row["subset"] == "all")


def languages():
    """Features, codes and what else a dataset in two languages has; the rows of one, which lacks a label."""
    X, codes = world(n=300)
    subsets = np.where(np.arange(300) % 3 == 0, "de", "en").astype(object)
    german = subsets == "de"
    codes[german & (codes == 2)] = 0
    texts = [f"topic{code} or {number:.0f}" for code, number in zip(codes, 10 * X[:, 3], strict=True)]
    return X, codes, {"groups": np.arange(300) // 2, "subsets": subsets, "texts": np.array(texts, dtype=object)}, german


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, "tfidf-word"])
def test_a_subset_alone_is_what_it_would_be_as_a_dataset_of_its_own(form):
    X, codes, columns, german = languages()
    search = {"thresholds": [None, 1.0], "sparse_k": [2], "regimes": NO_REGIMES | {"shuffled": True}}

    def cells_of(rows, *, alone):
        here = {name: values[rows] for name, values in columns.items()}
        here["texts"] = list(here["texts"])
        given = arms.on_text(form, table(codes[rows], **here)) if isinstance(form, str) else form(X[rows])
        found = run(given, codes[rows], which=["paper", "strict"], search=search | {"alone": alone}, **here)
        return found[0].to_pylist(), found[1]

    everything = np.ones(300, dtype=bool)
    cells, predictions = cells_of(everything, alone=True)
    pooled, same_predictions = cells_of(everything, alone=False)
    assert [cell for cell in cells if cell["regime"] != "alone"] == pooled
    assert predictions.equals(same_predictions)
    for subset, rows in (("de", german), ("en", ~german)):
        own = [cell for cell in cells_of(rows, alone=False)[0] if cell["k"] is None and cell["regime"] == "full"]
        found = [cell for cell in cells if cell["regime"] == "alone" and cell["subset"] == subset]
        # TF-IDF numbers its terms over all texts, so sums over them are in another order.
        numbers = [name for name in cells[0] if isinstance(own[0][name], float)]
        for cell, expected in zip(found, own, strict=True):
            assert [cell.pop(name) for name in numbers] == pytest.approx(
                [expected.pop(name) for name in numbers], rel=1e-4
            )
            assert cell == expected | {"subset": subset, "regime": "alone"}
        assert {(cell["status"], cell["n_classes"]) for cell in found} == {("ok", 2 if subset == "de" else 3)}


def test_predictions_say_what_the_metrics_were_computed_from():
    X, codes = world()
    cells, predictions = run(X, codes, which=["strict"])
    assert predictions.schema.equals(PREDICTIONS, check_metadata=False)
    labels = json.loads(predictions.schema.metadata[b"labels"])
    assert labels == ["label 0", "label 1", "label 2"]
    for cell in cells.to_pylist():
        rows = [row for row in predictions.to_pylist() if row["seed"] == cell["seed"]]
        assert len(rows) == cell["n_test"]
        truth, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
        assert cell["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert [labels[int(np.argmax(row["scores"]))] for row in rows] == predicted
        np.testing.assert_allclose([sum(row["scores"]) for row in rows], 1, atol=1e-6)


def test_a_subset_without_test_examples_is_a_failed_slice_of_a_good_cell():
    X, codes = world()
    subsets = ["rare"] + ["common"] * 159
    rows = run(X, codes, subsets=subsets)[0].to_pylist()
    rare = [row for row in rows if row["subset"] == "rare"]
    assert {row["reason"] for row in rare if row["n_test"] == 0} == {"no example of this subset is in the test part"}
    assert all(row["status"] == "ok" for row in rows if row["subset"] == "common")
    assert any(row["n_test"] == 0 for row in rare)


def test_the_majority_arm_answers_with_the_largest_class_and_has_no_c():
    codes = np.repeat([0, 1], [60, 40])
    cells, predictions = run(arms.on_text("majority", table(codes)), codes, which=["paper", "strict"])
    assert set(predictions["predicted"].to_pylist()) == {"label 0"}
    for row in cells.to_pylist():
        assert (row["status"], row["classifier"], row["c"], row["n_features"]) == ("ok", "majority", None, 0)
        assert row["auroc"] == pytest.approx(0.5)
        assert row["accuracy"] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("name", ["tfidf-word", "tfidf-char"])
def test_text_arms_go_through_both_protocols(name):
    rng = np.random.default_rng(0)
    codes = np.tile([0, 1], 60)
    words = np.array(["alpha beta gamma", "delta epsilon zeta"])
    texts = [f"{words[code]} {rng.choice(['one', 'two', 'three'])}" for code in codes]
    cells, _ = run(
        arms.on_text(name, table(codes, texts=texts)), codes, which=["paper", "strict"], search={"thresholds": [1.0]}
    )
    for row in cells.to_pylist():
        assert (row["status"], row["threshold"]) == ("ok", None)
        assert row["accuracy"] == 1


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    X, codes = world()
    for name in ("first", "again"):
        probes.write(*run(sparse.csr_matrix(X), codes, which=["paper", "strict"]), tmp_path / name / "sum.parquet")
    for file in ("sum.parquet", "sum.predictions.parquet"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    cells = pq.ParquetFile(tmp_path / "first" / "sum.parquet").read()
    assert cells.schema.equals(CELLS, check_metadata=False)


def test_failed_is_not_a_result():
    X, _ = world()
    protocol, splits = one_split(np.zeros(160, int))
    (result,) = Probe(arms.given(X, None), protocol, np.zeros(160, int), 1).results(splits)
    assert result == Failed("there is only one label")


# --- variants ------------------------------------------------------------------------------------------------------

REGIMES = {"train_shares": [0.3], "label_noise": [0.4], "imbalance": [4.0], "shuffled": True}


def test_curves_run_under_strict_alone_and_leave_no_predictions():
    X, codes = world()
    search = {"thresholds": [None, 1.0], "classifiers": ["l2", "means"], "sparse_k": [1, 4], "regimes": REGIMES}
    cells, predictions = run(sparse.csr_matrix(X), codes, which=["paper", "strict"], search=search)
    found = {
        (row["protocol"], row["classifier"], row["threshold"], row["k"], row["regime"]) for row in cells.to_pylist()
    }
    competing = {(p, c, t, None, "full") for p in ("paper", "strict") for c in ("l2", "means") for t in (None, 1.0)}
    curves = {("strict", "l2", None, k, "full") for k in (1, 4)} | {
        ("strict", "l2", None, None, regime) for regime in ("train-0.3", "noise-0.4", "imbalance-4", "shuffled")
    }
    assert found == competing | curves
    assert {row["status"] for row in cells.to_pylist()} == {"ok"}
    answered = {(row["protocol"], row["classifier"], row["threshold"]) for row in predictions.to_pylist()}
    assert answered == {key[:3] for key in competing}


def scores(cells, **wanted):
    rows = [row for row in cells.to_pylist() if wanted.items() <= row.items()]
    assert rows
    return np.mean([row["macro_f1"] for row in rows])


def test_regimes_are_harder_and_shuffled_labels_are_at_chance():
    X, codes = world(n=600, seed=3)
    settings = STRICT | {"seeds": 5}
    cells, _ = run(sparse.csr_matrix(X), codes, search={"regimes": REGIMES}, settings=settings)
    full = scores(cells, regime="full")
    assert full > 0.6
    for regime in ("train-0.3", "noise-0.4", "imbalance-4"):
        assert scores(cells, regime=regime) < full
    # Three classes as frequent as each other: a third is what guessing earns.
    assert scores(cells, regime="shuffled") == pytest.approx(1 / 3, abs=0.06)
    # All are scored on the same test examples.
    assert len({(row["seed"], row["n_test"]) for row in cells.to_pylist()}) == 5


def test_few_features_find_the_planted_ones():
    X, codes = world(n=400)
    cells, _ = run(sparse.csr_matrix(X), codes, search={"sparse_k": [1, 3]})
    # One feature was planted for each of the three labels.
    assert scores(cells, k=3) > scores(cells, k=1) + 0.1
    assert scores(cells, k=3) > scores(cells, regime="full", k=None) - 0.02
    assert {row["n_features"] for row in cells.to_pylist() if row["k"] == 3} == {3}


def test_hidden_states_are_cut_to_components_and_called_so():
    X, codes = world(n=300)
    cells, _ = run(X, codes, search={"sparse_k": [2, 512]})
    assert {(row["arm"], row["k"]) for row in cells.to_pylist()} == {("sae", None), ("pca", 2)}


def test_curves_are_computed_for_the_poolings_that_are_named():
    X, codes = world()
    for named, regimes in ((["sum"], {"full", "shuffled"}), (["last"], {"full"})):
        search = {"regimes": NO_REGIMES | {"shuffled": True}, "curve_poolings": named}
        cells, _ = run(sparse.csr_matrix(X), codes, search=search)
        assert {row["regime"] for row in cells.to_pylist()} == regimes


@pytest.mark.parametrize("which", ["paper", "strict"])
def test_a_planted_feature_weighs_most_and_with_its_sign(which):
    rng = np.random.default_rng(30)
    codes = rng.integers(0, 2, 300)
    X = rng.standard_normal((300, 20)).astype(np.float32)
    X[:, 4] += 1.2 * codes
    X[:, 9] -= 1.2 * codes
    protocol = protocols.paper() if which == "paper" else protocols.strict(**(STRICT | {"seeds": 1}))
    # The seed of which models are kept.
    split = replace(protocol.splits(codes, np.arange(300))[0], seed=protocols.FIRST)
    (result,) = Probe(arms.given(X, None), protocol, codes, 2).results([split])
    weights = result.model.weights[0]
    assert (weights.argmax(), weights.argmin()) == (4, 9)
    assert weights[4] > 0 > weights[9]


def test_many_labels_some_of_them_rare():
    """Seventy-seven labels, of which the last has too few examples for the folds: its cells say so and stand for themselves."""
    rng = np.random.default_rng(31)
    codes = np.concatenate([np.repeat(np.arange(76), 8), [76] * 5])
    X = rng.random((len(codes), 100)).astype(np.float32)
    X[np.arange(len(codes)), codes] += 3
    cells, _ = run(sparse.csr_matrix(X), codes, which=["paper", "strict"], settings=STRICT | {"seeds": 1})
    found = cells.to_pylist()
    assert {row["n_classes"] for row in found} == {77}
    good = [row for row in found if row["status"] == "ok"]
    assert {row["protocol"] for row in good} >= {"strict"}
    assert min(row["macro_f1"] for row in good) > 0.7
    cells, _ = run(sparse.csr_matrix(X[:-4]), codes[:-4], settings=STRICT | {"seeds": 1})
    assert all("label" in reason for reason in reasons(cells))
    assert reasons(cells)
