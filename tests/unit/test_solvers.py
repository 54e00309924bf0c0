"""Both solvers against scikit-learn's dense path, and the promises that scikit-learn does not make."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from tessera import descent, solvers
from tessera.solvers import Fit, Model, NotConverged


def world(seed=0, n=150, d=30, n_classes=4, density=0.3):
    """Non-negative features of unequal size and density, as pooled SAE features are, and labels they tell a little of."""
    rng = np.random.default_rng(seed)
    here = rng.random((n, d)) < np.linspace(density, density / 4, d)
    X = (rng.gamma(1.0, rng.uniform(0.2, 3, d), (n, d)) * here).astype(np.float32)
    codes = (X[:, :n_classes] + rng.gumbel(0, 1, (n, n_classes))).argmax(axis=1)
    return X, codes


def whole(n):
    return np.ones((1, n), dtype=bool)


SHAPES = {"two classes": (150, 30, 2), "four classes": (150, 30, 4), "more features than examples": (60, 150, 3)}
SHAPES["far more features than examples"] = (50, 1000, 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_one_vs_rest_is_scikit_learns_at_its_default_tolerance(shape, form):
    n, d, n_classes = SHAPES[shape]
    X, codes = world(1, n, d, n_classes)
    cs = (0.001, 0.1, 1.0)
    models = list(solvers.one_vs_rest(form(X), codes, n_classes, whole(n), [Fit(0, c) for c in cs]))
    for c, model in zip(cs, models, strict=True):
        for row, label in enumerate(range(n_classes) if n_classes > 2 else [1]):
            theirs = LogisticRegression(C=c, max_iter=5000).fit(X.astype(np.float64), codes == label)
            # Far inside what the tolerance leaves open: the steps are the same, not only where they lead.
            np.testing.assert_allclose(model.weights[row], theirs.coef_[0], atol=1e-6)
            np.testing.assert_allclose(model.intercepts[row], theirs.intercept_[0], atol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("back_bytes", [solvers.BACK_BYTES, 1])
def test_many_features_are_turned_into_a_few_which_changes_no_model(form, back_bytes, monkeypatch):
    X, codes = world(13, 40, 900, 3)
    # Examples that are others again, or sums of others to the last bit, take up no dimension.
    X = np.round(8 * X) / 8
    X[7], X[8], X[9] = X[3], X[3] + X[4], 0
    parts = np.random.default_rng(0).random((2, 40)) < 0.8
    fits = [Fit(part, c) for part in range(2) for c in (0.01, 1.0)]
    sizes = []
    walk = solvers.walk_together

    def watched(starts, evaluate, rules):
        sizes.append(starts.shape[1])
        return walk(starts, evaluate, rules)

    monkeypatch.setattr(solvers, "walk_together", watched)
    monkeypatch.setattr(solvers, "BACK_BYTES", back_bytes)
    turned = list(solvers.one_vs_rest(form(X), codes, 3, parts, fits))
    monkeypatch.setattr(solvers, "TURN_FROM", np.inf)
    plain = list(solvers.one_vs_rest(form(X), codes, 3, parts, fits))
    assert sizes[0] == 37 + 1
    assert sizes[1] > 800
    for one, other in zip(turned, plain, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-10)
        np.testing.assert_allclose(one.intercepts, other.intercepts, atol=1e-10)


def standardised(X):
    centred = (X - X.mean(axis=0)).astype(np.float64)
    spread = centred.std(axis=0)
    kept = spread > 0
    return np.divide(centred, spread, out=np.zeros_like(centred), where=kept) * 8 / np.sqrt(kept.sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_multinomial_is_scikit_learns_minimum_on_standardised_features(shape, form):
    n, d, n_classes = SHAPES[shape]
    X, codes = world(2, n, d, n_classes)
    cs = (0.01, 1.0, 10.0)
    fits = [Fit(0, c) for c in cs]
    models = solvers.multinomial(form(X), codes, n_classes, whole(n), fits, scaling="each feature", tolerance=1e-12)
    scaled = standardised(X)
    for c, model in zip(cs, models, strict=True):
        theirs = LogisticRegression(C=c, max_iter=20000, tol=1e-9).fit(scaled, codes)
        np.testing.assert_allclose(model.probabilities(form(X)), theirs.predict_proba(scaled), atol=1e-5)


def objective(model, scaled, X, codes, c):
    """Mean negative log-likelihood and penalty; the weights are taken back to the scaled features."""
    likelihood = -np.log(model.probabilities(X)[np.arange(len(codes)), codes]).mean()
    factor = np.linalg.lstsq(scaled, (X - X.mean(axis=0)) @ model.weights.T, rcond=None)[0]
    return likelihood + (factor**2).sum() / (2 * c * len(codes))


@pytest.mark.parametrize("scaling", ["each feature", "all alike"])
def test_a_converged_fit_is_within_its_tolerance_of_the_minimum(scaling):
    X, codes = world(3, 120, 20, 3)
    fits = [Fit(0, c) for c in (0.01, 1.0, 10.0)]
    near = solvers.multinomial(X, codes, 3, whole(120), fits, scaling=scaling, tolerance=1e-4)
    exact = solvers.multinomial(X, codes, 3, whole(120), fits, scaling=scaling, tolerance=1e-13)
    _, variance = solvers.moments(X, whole(120))
    scaled = (X - X.mean(axis=0)) * solvers.scales(variance, scaling)[0]
    for fit, one, other in zip(fits, near, exact, strict=True):
        above = objective(one, scaled, X, codes, fit.value) - objective(other, scaled, X, codes, fit.value)
        assert -1e-9 < above < 1e-4


@pytest.mark.parametrize("solve", ["one_vs_rest", "multinomial"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_part_fitted_in_company_is_fitted_as_if_the_other_examples_were_not_there(solve, n_classes):
    X, codes = world(4, 140, 25, n_classes)
    parts = np.random.default_rng(0).random((3, 140)) < 0.7
    fits = [Fit(part, c) for part in range(3) for c in (0.1, 1.0)]
    settings = {} if solve == "one_vs_rest" else {"scaling": "each feature", "tolerance": 1e-11}
    function = getattr(solvers, solve)
    together = function(sparse.csr_matrix(X), codes, n_classes, parts, fits, **settings)
    for fit, model in zip(fits, together, strict=True):
        mine = parts[fit.part]
        (alone,) = function(X[mine], codes[mine], n_classes, whole(mine.sum()), [Fit(0, fit.value)], **settings)
        np.testing.assert_allclose(model.probabilities(X), alone.probabilities(X), atol=1e-4)


def test_examples_outside_a_part_leave_no_trace_in_its_model():
    X, codes = world(5, 140, 25, 3)
    part = np.arange(140) < 100
    spoilt = X.copy()
    spoilt[100:] = 50 * np.random.default_rng(1).standard_normal((40, 25))
    clean, other = (
        next(
            solvers.multinomial(features, codes, 3, part[None], [Fit(0, 1.0)], scaling="each feature", tolerance=1e-12)
        )
        for features in (X, spoilt)
    )
    np.testing.assert_allclose(clean.probabilities(X), other.probabilities(X), atol=1e-5)


def test_scaling_gives_every_part_rows_of_the_same_mean_squared_length():
    X, _ = world(6, 100, 20)
    parts = np.random.default_rng(0).random((2, 100)) < 0.5
    mean, variance = solvers.moments(sparse.csr_matrix(X), parts)
    for scaling in ("each feature", "all alike"):
        factor = solvers.scales(variance, scaling)
        for part in range(2):
            rows = (X[parts[part]] - mean[part]) * factor[part]
            assert (rows**2).sum(axis=1).mean() == pytest.approx(solvers.SQUARED_LENGTH)
            spreads = rows.std(axis=0)[variance[part] > 0]
            assert (np.ptp(spreads) < 1e-9) == (scaling == "each feature")


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_moments_are_those_of_the_part_and_a_constant_feature_has_none(form):
    X, _ = world(7, 80, 12)
    X[:, 3], X[:, 4], X[50:, 5] = 0.1, 0.0, 7.0
    X[:, 6] += 1000
    parts = np.stack([np.arange(80) < 50, np.arange(80) >= 50])
    mean, variance = solvers.moments(form(X), parts)
    for part in range(2):
        rows = X[parts[part]].astype(np.float64)
        np.testing.assert_allclose(mean[part], rows.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(variance[part], rows.var(axis=0), atol=1e-7)
    assert variance[0, 3] == variance[0, 4] == variance[1, 5] == 0
    assert variance[0, 5] > 0


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("solve", ["one_vs_rest", "multinomial"])
def test_features_that_tell_nothing_get_no_weight(form, solve):
    X, codes = world(8, 90, 10, 3)
    X[:, 4] = 0
    if solve == "multinomial":
        X[:, 7] = 3
    settings = {"scaling": "each feature"} if solve == "multinomial" else {}
    (model,) = getattr(solvers, solve)(form(X), codes, 3, whole(90), [Fit(0, 1.0)], **settings)
    assert model.weights.shape == (3, 10)
    assert (model.weights[:, 4] == 0).all()
    assert (model.weights[:, 7] == 0).all() == (solve == "multinomial")


@pytest.mark.parametrize("solve", ["one_vs_rest", "multinomial"])
def test_without_any_feature_the_model_knows_the_shares_of_the_classes(solve):
    codes = np.repeat([0, 1, 2], [10, 20, 30])
    settings = {"scaling": "each feature"} if solve == "multinomial" else {}
    (model,) = getattr(solvers, solve)(np.zeros((60, 4), np.float32), codes, 3, whole(60), [Fit(0, 1.0)], **settings)
    np.testing.assert_allclose(model.probabilities(np.zeros((1, 4)))[0], [1 / 6, 1 / 3, 1 / 2], atol=2e-3)


def test_the_majority_model_answers_with_the_first_of_the_largest_classes():
    codes = np.array([1, 1, 2, 2, 0])
    (model,) = solvers.majority(np.empty((5, 0)), codes, 3, whole(5), [Fit(0, 1.0)])
    np.testing.assert_allclose(model.probabilities(np.empty((2, 0))), [[0.2, 0.4, 0.4]] * 2)
    assert model.predict(np.empty((2, 0))).tolist() == [1, 1]


def test_a_fit_that_does_not_converge_is_told_from_those_that_do():
    X, codes = world(9, 120, 30, 3)
    fits = [Fit(0, 1e-6), Fit(0, 100.0)]
    for outcomes in (
        solvers.multinomial(X, codes, 3, whole(120), fits, scaling="each feature", steps=7),
        solvers.one_vs_rest(X, codes, 3, whole(120), fits, tolerance=1e-3, steps=9),
    ):
        good, bad = outcomes
        assert isinstance(good, Model)
        assert isinstance(bad, NotConverged)
        assert "not done after" in bad.why


@pytest.mark.parametrize("solve", ["one_vs_rest", "multinomial"])
def test_extreme_features_overflow_nothing(solve):
    X, codes = world(10, 80, 6, 3)
    X[:, 0] *= 1e6
    X[:, 1] *= 1e-6
    settings = {"scaling": "all alike"} if solve == "multinomial" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (model,) = getattr(solvers, solve)(X, codes, 3, whole(80), [Fit(0, 10.0)], **settings)
        scores = model.probabilities(1e3 * X)
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_float32_gets_close_enough_for_the_exact_bound(monkeypatch):
    X, codes = world(11, 300, 60, 4)
    precisions = []
    walk = solvers.walk_together

    def watched(starts, evaluate, rules):
        ends = list(walk(starts, evaluate, rules))
        precisions.append((starts.dtype, max(end.steps for end in ends)))
        return iter(ends)

    monkeypatch.setattr(solvers, "walk_together", watched)
    list(solvers.multinomial(X, codes, 4, whole(300), [Fit(0, c) for c in (0.1, 10.0)], scaling="each feature"))
    (coarse, many), (exact, few) = precisions
    assert (coarse, exact) == (np.float32, np.float64)
    assert many > 5
    assert few == 0


def test_the_dense_form_is_taken_where_it_is_faster_and_fits():
    crowded, thin = sparse.random(50, 40, 0.5, "csr"), sparse.random(50, 40, 0.02, "csr")
    assert isinstance(solvers.fastest_form(crowded), np.ndarray)
    assert sparse.issparse(solvers.fastest_form(thin))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_features_vary_if_any_example_differs(form):
    X = np.ones((5, 3))
    assert not solvers.varies(form(X))
    assert not solvers.varies(form(np.empty((5, 0))))
    X[4, 2] = 0
    assert solvers.varies(form(X))


def test_fits_that_do_not_fit_into_memory_go_in_blocks(monkeypatch):
    X, codes = world(12, 100, 20, 3)
    fits = [Fit(0, c) for c in (0.01, 0.1, 1.0)]
    at_once = list(solvers.multinomial(X, codes, 3, whole(100), fits, scaling="each feature"))
    sizes = []
    walk = solvers.walk_together

    def watched(starts, evaluate, rules):
        sizes.append(len(starts))
        return walk(starts, evaluate, rules)

    monkeypatch.setattr(solvers, "walk_together", watched)
    monkeypatch.setattr(descent, "BLOCK_BYTES", 2 * 28 * 8 * 63)
    in_blocks = list(solvers.multinomial(X, codes, 3, whole(100), fits, scaling="each feature"))
    assert sizes == [2, 2, 1, 1]
    for one, other in zip(at_once, in_blocks, strict=True):
        np.testing.assert_allclose(one.probabilities(X), other.probabilities(X), atol=1e-3)
