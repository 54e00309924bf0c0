"""Many walks at a time against one at a time, against scipy's L-BFGS-B, and against textbook BFGS."""

import numpy as np
import pytest
from scipy import optimize

from tessera import descent
from tessera.descent import Rules


def walk_together(starts, evaluate, rules):
    return list(descent.walk_together(starts, evaluate, rules))


def quadratics(rng, count, size):
    roots = rng.standard_normal((count, size, size))
    return np.einsum("fij,fkj->fik", roots, roots) / size + 0.1 * np.eye(size), rng.standard_normal((count, size))


def evaluation(hessians, minima):
    def evaluate(which, points):
        off = points - minima[which]
        slopes = np.einsum("pij,pj->pi", hessians[which], off)
        return 0.5 * np.einsum("pi,pi->p", off, slopes), slopes, np.abs(slopes).max(axis=1)

    return evaluate


def rosenbrock(which, points):
    gradients = np.array([optimize.rosen_der(point) for point in points])
    return np.array([optimize.rosen(point) for point in points]), gradients, np.abs(gradients).max(axis=1)


def test_every_walk_finds_its_own_minimum():
    hessians, minima = quadratics(np.random.default_rng(0), 7, 12)
    ends = walk_together(np.zeros((7, 12)), evaluation(hessians, minima), Rules(1e-9, 200))
    assert [end.reason for end in ends] == [""] * 7
    np.testing.assert_allclose([end.point for end in ends], minima, atol=1e-7)


def test_a_walk_in_company_takes_the_steps_it_takes_alone():
    hessians, minima = quadratics(np.random.default_rng(1), 5, 9)
    together = walk_together(np.zeros((5, 9)), evaluation(hessians, minima), Rules(1e-8, 200))
    for which, end in enumerate(together):
        pick = slice(which, which + 1)
        (alone,) = walk_together(np.zeros((1, 9)), evaluation(hessians[pick], minima[pick]), Rules(1e-8, 200))
        assert end.steps == alone.steps
        np.testing.assert_allclose(end.point, alone.point, atol=1e-12)


def test_walks_that_do_not_fit_into_memory_go_in_blocks(monkeypatch):
    hessians, minima = quadratics(np.random.default_rng(2), 6, 8)
    at_once = walk_together(np.zeros((6, 8)), evaluation(hessians, minima), Rules(1e-8, 200))
    monkeypatch.setattr(descent, "BLOCK_BYTES", 2 * 28 * 8 * 8)
    sizes = []

    def evaluate(which, points):
        sizes.append(len(which))
        return evaluation(hessians, minima)(which, points)

    in_blocks = walk_together(np.zeros((6, 8)), evaluate, Rules(1e-8, 200))
    assert max(sizes) == 2
    np.testing.assert_allclose([end.point for end in in_blocks], [end.point for end in at_once], atol=1e-12)


@pytest.mark.parametrize("start", [[-1.2, 1.0], [3.0, -4.0, 1.0], [0.1, 5.0, -2.0, 2.0, 0.5]])
def test_a_walk_visits_the_points_of_scipys_l_bfgs_b(start):
    visited = []

    def evaluate(which, points):
        visited.append(points[0].copy())
        return rosenbrock(which, points)

    (end,) = walk_together(np.array([start]), evaluate, Rules(1e-4, 500))
    theirs = []

    def watched(point):
        theirs.append(point.copy())
        return optimize.rosen(point), optimize.rosen_der(point)

    options = {"gtol": 1e-4, "ftol": 0, "maxls": 50}
    reference = optimize.minimize(watched, start, jac=True, method="L-BFGS-B", options=options)
    assert (end.steps, len(visited)) == (reference.nit, reference.nfev)
    np.testing.assert_allclose(visited, theirs, rtol=1e-4, atol=1e-6)


def test_the_compact_inverse_hessian_is_that_of_bfgs_updates():
    rng = np.random.default_rng(3)
    hessians, _ = quadratics(rng, 2, 6)
    memory = descent._Memory(np.zeros((2, 6)))
    pairs = []
    for _ in range(descent.MEMORY + 4):
        steps = rng.standard_normal((2, 6))
        changes = np.einsum("pij,pj->pi", hessians, steps)
        curvatures = np.einsum("pi,pi->p", steps, changes)
        everyone = np.ones(2, dtype=bool)
        memory.add(everyone, steps=steps, changes=changes, curvatures=curvatures, drops=np.ones(2))
        pairs.append((steps, changes, curvatures))
    gradients = rng.standard_normal((2, 6))
    found = memory.descent(gradients)
    for which in range(2):
        _, change, curvature = (part[which] for part in pairs[-1])
        inverse = np.eye(6) * curvature / (change @ change)
        for step, change, curvature in ((s[which], y[which], c[which]) for s, y, c in pairs[-descent.MEMORY :]):
            project = np.eye(6) - np.outer(step, change) / curvature
            inverse = project @ inverse @ project.T + np.outer(step, step) / curvature
        np.testing.assert_allclose(found[which], -inverse @ gradients[which], rtol=1e-8)


def test_a_walk_that_runs_out_of_steps_says_so():
    (end,) = walk_together(np.array([[-1.2, 1.0]]), rosenbrock, Rules(1e-8, 3))
    assert end.steps == 3
    assert end.reason == "not done after 3 steps"
    assert end.residual > 1e-8


def test_a_walk_that_gains_no_more_than_flat_has_arrived():
    (end,) = walk_together(np.array([[-1.2, 1.0]]), rosenbrock, Rules(1e-30, 500, flat=1e-6))
    assert end.reason == ""
    np.testing.assert_allclose(end.point, [1, 1], atol=1e-2)


def test_a_gradient_that_points_nowhere_ends_in_a_reason_and_not_in_a_loop():
    def uphill(which, points):
        gradients = np.ones_like(points)
        return -points.sum(axis=1), gradients, np.ones(len(points))

    (end,) = walk_together(np.zeros((1, 3)), uphill, Rules(1e-6, 50))
    assert end.reason == "no step along the gradient lowers the function"
    np.testing.assert_array_equal(end.point, np.zeros(3))


def test_a_walk_at_its_minimum_stays_there():
    hessians, minima = quadratics(np.random.default_rng(4), 3, 5)
    ends = walk_together(minima, evaluation(hessians, minima), Rules(1e-9, 10))
    assert [end.steps for end in ends] == [0, 0, 0]
    np.testing.assert_array_equal([end.point for end in ends], minima)


def test_starts_are_left_as_they_were():
    hessians, minima = quadratics(np.random.default_rng(5), 4, 5)
    starts = np.ones((4, 5))
    walk_together(starts, evaluation(hessians, minima), Rules(1e-9, 100))
    np.testing.assert_array_equal(starts, np.ones((4, 5)))
