"""Arms: what they make of a dataset, and that the test part never has a say in it."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from tessera import arms
from tessera.errors import UserError
from tessera.examples import Table

TEXTS = [
    "The cat sat on the mat; the cat slept.",
    "A dog! A DOG on the mat?",
    "Ünïcode wörter, 漢字 and a",
    "",
    "cats and dogs and cats",
    "x y z",
]
TRAIN = np.array([True, True, True, False, False, True])


def table(texts=TEXTS, images=None):
    n = len(texts or images)
    words = np.array(["all"] * n, dtype=object)
    return Table([str(row) for row in range(n)], texts, images, words, words, [None] * n, np.arange(n))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("tfidf-word", {}), ("tfidf-char", {"analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 2})],
)
def test_tfidf_is_scikit_learns_fitted_to_the_training_texts(name, settings):
    theirs = TfidfVectorizer(sublinear_tf=True, **settings)
    theirs.fit([text for text, train in zip(TEXTS, TRAIN, strict=True) if train])
    expected, found = theirs.transform(TEXTS).toarray(), arms.on_text(name, table()).features(TRAIN).toarray()
    # Columns stand in another order, so they are compared as a set.
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[:, np.lexsort(found)], expected[:, np.lexsort(expected)], atol=1e-12)


def test_a_term_of_the_test_part_alone_is_no_feature():
    texts = [*TEXTS[:4], "zyzzyva zyzzyva", TEXTS[5]]
    for name in ("tfidf-word", "tfidf-char"):
        with_it = arms.on_text(name, table(texts)).features(TRAIN)
        without = arms.on_text(name, table(TEXTS)).features(TRAIN)
        assert with_it.shape == without.shape
        np.testing.assert_allclose(with_it[TRAIN].toarray(), without[TRAIN].toarray())


def test_a_text_without_known_terms_has_no_features_and_no_nan():
    features = arms.on_text("tfidf-word", table()).features(TRAIN)
    assert features[3].nnz == 0
    assert np.isfinite(features.data).all()


def test_fitting_leaves_the_counts_as_they_were():
    arm = arms.on_text("tfidf-char", table())
    before = arm.counts.copy()
    arm.features(TRAIN)
    assert (arm.counts != before).nnz == 0


def test_characters_are_runs_within_a_word_and_its_spaces():
    assert list(arms.characters("Ab c")) == [
        (" a", "ab", "b ", " ab", "ab ", " ab "),
        (" c", "c ", " c "),
    ]


def test_a_word_of_any_length_has_the_same_runs_in_the_same_order():
    word = "".join(map(chr, range(0x4E00, 0x4E00 + 3 * arms.PART)))
    in_parts = [run for part in arms.characters(f"ab {word}") for run in part]
    at_once = [f" {word} "[start : start + size] for size in range(2, 6) for start in range(len(word) + 3 - size)]
    assert in_parts == [*next(iter(arms.characters("ab"))), *at_once]


def test_memory_does_not_grow_with_the_runs_of_a_long_word():
    texts = ["x" * 500_000, "y z"]
    tracemalloc.start()
    counts = arms.count(texts, arms.characters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A run that is kept as a string takes some fifty bytes.
    assert peak < 4 * 500_000 * 25
    assert counts.sum(axis=1).tolist() == [[4 * 500_000 - 2], [6]]


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_a_threshold_keeps_what_reaches_it_and_counts_it_as_one(form):
    X = np.array([[0, 1.0, 0.99], [2.5, 0, 1.01]], np.float32)
    features = arms.given(form(X), 1.0).features(TRAIN)
    assert features.dtype == np.float32
    dense = features if isinstance(features, np.ndarray) else features.toarray()
    np.testing.assert_array_equal(dense, [[0, 1, 0], [1, 0, 1]])
    assert isinstance(features, np.ndarray) or features.nnz == 3


def test_without_a_threshold_features_are_passed_on_as_they_are():
    X = sparse.csr_matrix(np.eye(3, dtype=np.float32))
    assert arms.given(X, None).features(TRAIN) is X


def test_the_majority_arm_has_no_features():
    arm = arms.on_text("majority", table())
    assert arm.features(TRAIN).shape == (6, 0)
    assert arm.classifier == "majority"


def test_images_are_texts_without_words():
    arm = arms.on_text("tfidf-word", table(None, [b"png"] * 3))
    assert arm.features(np.ones(3, dtype=bool)).shape == (3, 0)


def test_an_unknown_text_arm_is_told_with_those_there_are():
    with pytest.raises(UserError, match=r"'bow' is not a text arm.*majority, tfidf-char, tfidf-word"):
        arms.on_text("bow", table())
