"""Trees and the L1 path against scikit-learn used plainly, and against what defines them."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.tree import DecisionTreeClassifier
from test_protocols import run, table, world

from tessera.classifiers import Shape, lasso, trees
from tessera.solvers import Fit, NotConverged

FORMS = [np.asarray, sparse.csr_matrix]


def whole(n):
    return np.ones((1, n), dtype=bool)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(200, 25, 2), (240, 30, 4)])
def test_the_published_tree_is_what_a_plain_scikit_learn_script_gives(form, shape):
    X, codes = world(*shape, seed=3)
    cells, _ = run(form(X), codes, which=["paper"], search={"classifiers": ["tree"]})
    labels = table(codes).labels.tolist()
    X_train, X_test, y_train, y_test = train_test_split(X, labels, test_size=0.2, random_state=42, stratify=labels)
    grid = {"max_depth": [3, 5, 7, 9], "min_samples_split": [2, 5, 10], "min_samples_leaf": [1, 2, 4]}
    search = GridSearchCV(DecisionTreeClassifier(random_state=42), grid, scoring="accuracy").fit(X_train, y_train)
    (cell,) = cells.to_pylist()
    assert cell["validation"] == pytest.approx(search.best_score_, abs=1e-12)
    best = {name: int(value) for name, value in search.best_params_.items()}
    assert cell["settings"] == str(Shape(best["max_depth"], best["min_samples_split"], best["min_samples_leaf"]))
    assert cell["accuracy"] == pytest.approx(accuracy_score(y_test, search.predict(X_test)))
    assert cell["macro_f1"] == pytest.approx(f1_score(y_test, search.predict(X_test), average="macro"))
    assert cell["c"] is None
    assert 0 < cell["n_weighed"] <= 30


def test_a_tree_knows_no_chance_for_a_class_it_has_not_seen():
    X, codes = world(60, 8, 3)
    (tree,) = trees(X[codes != 1], codes[codes != 1], 3, whole((codes != 1).sum()), [Fit(0, Shape(5, 2, 1))])
    found = tree.probabilities(X)
    assert found[:, 1].max() == 0
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_penalties_let_features_in_one_by_one_and_the_planted_one_first(form, n_classes):
    X, codes = world(300, 40, n_classes, seed=1)
    X[:, 7] += 1.5 * (codes == 1)
    fits = [Fit(0, share) for share in (1.01, 0.95, 0.3, 0.02)]
    models = list(lasso(form(X), codes, n_classes, whole(300), fits))
    counts = [model.weighed for model in models]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] > 5 * counts[1]
    of_class = models[1].weights[0 if n_classes == 2 else 1]
    assert of_class.argmax() == 7
    assert of_class[7] > 0


@pytest.mark.parametrize("form", FORMS)
def test_at_the_end_no_weight_can_be_bettered(form):
    """The conditions of the minimum: every slope equals the penalty where there is a weight, and is below it elsewhere."""
    X, codes = world(300, 20, 2, seed=4)
    (model,) = lasso(form(X), codes, 2, whole(300), [Fit(0, 0.2)], tolerance=1e-8)
    spread = X.std(axis=0)
    truth = codes == 1
    strongest = np.abs((truth - truth.mean()) @ ((X - X.mean(axis=0)) / spread)).max()
    slopes = (truth - model.probabilities(X)[:, 1]) @ ((X - X.mean(axis=0)) / spread)
    weights = model.weights[0]
    assert 0 < np.count_nonzero(weights) < 20
    np.testing.assert_allclose(slopes[weights != 0], 0.2 * strongest * np.sign(weights[weights != 0]), rtol=0.02)
    assert (np.abs(slopes[weights == 0]) <= 0.2 * strongest * 1.02).all()


def test_dense_and_sparse_features_give_the_same_regression():
    X, codes = world(200, 20, 3, seed=2)
    found = [next(lasso(form(X), codes, 3, whole(200), [Fit(0, 0.1)], tolerance=1e-8)) for form in FORMS]
    np.testing.assert_allclose(found[0].probabilities(X), found[1].probabilities(X), atol=0.01)


def test_a_class_without_examples_has_no_regression():
    X, codes = world(60, 8, 3)
    part = (codes != 2)[None]
    (model,) = lasso(X, codes, 3, part, [Fit(0, 0.1)])
    assert isinstance(model, NotConverged)
    assert "no examples of class 2" in model.why


def test_every_penalty_has_cells_and_predictions_of_its_own():
    X, codes = world()
    cells, predictions = run(sparse.csr_matrix(X), codes, search={"classifiers": ["l2", "l1"]})
    found = {(row["classifier"], row["penalty"]) for row in cells.to_pylist()}
    assert found == {("l2", None), ("l1", 0.5), ("l1", 0.1)}
    assert {(row["classifier"], row["penalty"]) for row in predictions.to_pylist()} == found
    assert all(row["status"] == "ok" for row in cells.to_pylist())
