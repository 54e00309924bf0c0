"""Near copies are those that a comparison of all pairs would find, in texts short and long, and in a crowd."""

import numpy as np
import pytest

from tessera import near_copies

VOCABULARY = (
    "amber birch cedar delta ember flint grove heath inlet jetty knoll ledge marsh north ochre pearl quill ridge shoal "
    "thorn upper vista wharf yield zephyr bramble cobble drizzle furrow gravel hollow island juniper kettle lantern "
    "meadow nettle orchard pebble quarry"
)
WORDS = np.array(VOCABULARY.split(), dtype=object)


def random_texts(n, rng, least=12, most=30):
    return [" ".join(rng.choice(WORDS, rng.integers(least, most + 1))) for _ in range(n)]


def similarities(texts, length, by_words):
    """The Jaccard similarity of all pairs, from plain sets."""

    def runs(text):
        units = text.split() if by_words else text
        return {tuple(units[start : start + length]) for start in range(max(1, len(units) - length + 1))}

    sets = [runs(text) for text in texts]
    return np.array([[len(one & other) / len(one | other) for other in sets] for one in sets])


def edited(text, rng, words):
    parts = text.split()
    for place in rng.choice(len(parts), words, replace=False):
        parts[place] = str(rng.choice(WORDS))
    return " ".join(parts)


@pytest.mark.parametrize(
    ("sizes", "edits", "length", "by_words"),
    [((2, 30), (0, 1, 2), 5, False), ((260, 300), (1, 6, 9, 14), 3, True)],
    ids=["runs of characters", "runs of words"],
)
def test_near_copies_are_those_of_a_comparison_of_all_pairs(sizes, edits, length, by_words):
    rng = np.random.default_rng(1)
    texts = random_texts(90, rng, *sizes)
    texts += [edited(text, rng, min(int(rng.choice(edits)), len(text.split()))) for text in texts[:70]]
    texts += ["ab", "abc", "漢字 仮名", ""]
    texts = list(dict.fromkeys(texts))
    found = near_copies.near(texts).toarray()
    expected = similarities(texts, length, by_words)
    np.fill_diagonal(expected, 0)
    assert ((expected > 0.6) & (expected < 0.8)).sum() > 10
    expected[expected < near_copies.SIMILAR] = 0
    assert np.count_nonzero(expected) > 20
    np.testing.assert_allclose(found, expected)


def test_every_text_of_a_crowd_has_near_copies_and_no_text_is_compared_with_all():
    rng = np.random.default_rng(2)
    stem = " ".join(rng.choice(WORDS, 60))
    texts = [f"{stem} {rng.choice(WORDS)} number {row}" for row in range(400)]
    found = near_copies.near(texts)
    assert (np.diff(found.indptr) > 0).all()
    assert found.nnz <= 2 * near_copies.NEIGHBOURS * len(texts)


def test_near_copies_are_found_in_a_crowd_that_is_nearly_as_alike():
    rng = np.random.default_rng(3)
    stem = " ".join(rng.choice(WORDS, 40))
    texts = [f"{stem} {' '.join(rng.choice(WORDS, 15))}" for _ in range(3000)]
    copies = [edited(text, rng, 3) for text in texts[:100]]
    found = near_copies.near(texts + copies)
    near = (
        similarities(texts[:100] + copies, 5, by_words=False)[np.arange(100), 100 + np.arange(100)]
        >= near_copies.SIMILAR
    )
    assert near.sum() > 90
    assert (found[np.arange(100), 3000 + np.arange(100)] > 0)[near].mean() >= 0.99
    assert found.nnz < 500  # the crowd itself is not near


def test_signatures_agree_as_often_as_texts_are_similar():
    rng = np.random.default_rng(4)
    texts = random_texts(60, rng)
    texts += [edited(text, rng, int(rng.integers(1, 8))) for text in texts]
    signatures = near_copies._signatures(near_copies._Runs(texts))
    agreement = np.array([(signatures[:, row] == signatures[:, 60 + row]).mean() for row in range(60)])
    similarity = similarities(texts, 5, by_words=False)[np.arange(60), 60 + np.arange(60)]
    assert abs((agreement - similarity).mean()) < 0.02
    assert (agreement - similarity).std() < 0.07  # that of a mean of a hundred coins is 0.05 at most
