"""Who is trained on what: folds, sizes, and what is shared between languages."""

import numpy as np
import pytest

from tessera.transfer.arrangement import Arrangement, Source, quotas


def parallel(n: int = 60, languages: int = 3, **more: object) -> Arrangement:
    """Parallel texts: the same meanings, with the same labels, in every language."""
    labels = np.tile(np.array(["no", "yes", "yes"], dtype=object)[np.arange(n) % 3], languages)
    groups = np.tile(np.arange(n), languages)
    language = np.repeat(np.arange(languages), n)
    targets = {str(place): language == place for place in range(languages)}
    sources = [Source(name, rows, dict.fromkeys(targets, "x")) for name, rows in targets.items()]
    settings = {"folds": 4, "inner_folds": 2, "shares": (0.25, 0.5, 1.0), **more}
    return Arrangement(labels, groups, sources, targets, **settings)  # type: ignore[arg-type]


def test_no_group_is_on_both_sides_and_every_example_is_tested_once() -> None:
    arrangement = parallel()
    for source in arrangement.sources:
        tested = np.zeros(len(arrangement.codes), int)
        for share, split in arrangement.splits(source):
            assert not split.problem
            assert not set(arrangement.groups[split.train]) & set(arrangement.groups[split.test])
            assert source.rows[split.train].all()
            tested += split.test if share == 1.0 else 0
        assert (tested == 1).all()


def test_languages_train_on_the_same_meanings_and_smaller_shares_are_parts_of_larger_ones() -> None:
    arrangement = parallel()
    meanings = [
        [frozenset(arrangement.groups[split.train].tolist()) for _, split in arrangement.splits(source)]
        for source in arrangement.sources
    ]
    assert meanings[0] == meanings[1] == meanings[2]
    folds = arrangement.folds
    for fold in range(folds):
        small, middle, large = (meanings[0][place * folds + fold] for place in range(3))
        assert small < middle < large


def test_the_training_size_is_that_of_the_smallest_source_and_keeps_the_proportions_of_labels() -> None:
    whole = parallel()
    cut = [Source("small", whole.sources[0].rows & (np.arange(180) < 30), {"1": "x"}), *whole.sources[1:]]
    arrangement = parallel()
    arrangement = Arrangement(whole.labels, whole.groups, cut, whole.targets, 4, 2)
    assert set(arrangement.size.values()) == {min(arrangement.size.values())}
    assert arrangement.size["small"] <= 24
    for source in arrangement.sources:
        for _, split in arrangement.splits(source):
            assert split.train.sum() == arrangement.size["small"]
            assert abs(arrangement.codes[split.train].mean() - 2 / 3) < 0.1
    unequal = Arrangement(whole.labels, whole.groups, cut, whole.targets, 4, 2, equal=False)
    assert unequal.size["1"] > 2 * unequal.size["small"] > 0


def test_a_source_with_a_problem_says_so_and_does_not_make_others_smaller() -> None:
    whole = parallel()
    few = whole.sources[0].rows & (np.arange(180) < 2)
    sources = [
        Source("few", few, {"1": "x"}),
        Source("none", few & False, {"1": "x"}),
        Source("told", few, {"1": "x"}, "it was taken away"),
        *whole.sources,
    ]
    arrangement = Arrangement(whole.labels, whole.groups, sources, whole.targets, 4, 2)
    problems = {source.name: arrangement.problem(source) for source in sources}
    assert problems["few"] == "'no' has 0 training examples in one of the folds, and 2 are needed"
    assert problems["none"] == "it has no examples"
    assert problems["told"] == "it was taken away"
    assert problems["0"] == ""
    assert set(arrangement.size) == {"0", "1", "2"}
    assert arrangement.size["0"] >= 44


def test_labels_that_a_source_lacks_are_named() -> None:
    labels = np.array(["a", "b", *"ab", *"wxyz", *"ab"] * 10, dtype=object)
    one = np.tile(np.arange(10) < 4, 10)
    targets = {"one": one, "two": ~one}
    sources = [Source(name, rows, dict.fromkeys(targets, "x")) for name, rows in targets.items()]
    arrangement = Arrangement(labels, np.arange(100), sources, targets, 2, 2)
    assert arrangement.mismatch(sources[0], "two") == "'two' has labels that 'one' lacks: 'w', 'x', 'y' and 1 more"
    # Labels more than the target has are no obstacle.
    assert arrangement.mismatch(sources[1], "one") == ""


@pytest.mark.parametrize("size", [0, 1, 7, 13, 20])
def test_quotas_add_up_and_differ_from_proportion_by_less_than_one(size: int) -> None:
    counts = np.array([10, 0, 7, 3])
    found = np.array(quotas(counts, size))
    assert found.sum() == size
    assert (np.abs(found - counts / 20 * size) < 1).all()
