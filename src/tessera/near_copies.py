"""Near copies among many texts, found without comparing all pairs.

A text is the set of its runs of a few characters or words. MinHash makes a signature of it, in which two texts agree in each
place with a probability that is their Jaccard similarity. Texts that agree in a whole band of places are candidates, and
the similarity of candidates is then computed from the sets themselves.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Array = npt.NDArray[Any]

# From which similarity on a text is a near copy: with one word in sixteen changed, or one sentence in ten.
SIMILAR = 0.8
# Runs of five characters are about a word, and hold in any script. Texts of a typical length of 250 words or more have so
# many that runs of three words tell them apart as well, at a fraction of the cost.
CHARACTERS, WORDS, LONG = 5, 3, 250
# Two texts at the threshold share a given band with probability 0.8 ** 5, and no band at all once in 2,800 times.
BANDS, ROWS = 20, 5
HASHES = BANDS * ROWS
# A pair at the threshold agrees in fewer than 60 of the 100 places about once in a million times.
LEAST_AGREEMENT = 0.6
# In a crowd of texts that are all alike, each is compared with the likest few, since any one copy in the training part counts.
NEIGHBOURS = 16
# Places beyond a band by which its texts are put in order, so that the likest are neighbours.
FURTHER = 6
BLOCK = 1 << 22  # characters, or words, in work at a time
SEED = 0
MIXERS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


def near(texts: Sequence[str]) -> sparse.csr_array:
    """The Jaccard similarity of texts x texts where it reaches `SIMILAR`, and nothing for a text and itself."""
    runs = _Runs(texts)
    pairs = _candidates(_signatures(runs))
    similarity = _jaccard(runs, pairs)
    pairs, similarity = pairs[similarity >= SIMILAR], similarity[similarity >= SIMILAR]
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    return sparse.csr_array((np.tile(similarity, 2), (rows, columns)), shape=(len(texts), len(texts)))


class _Runs:
    """Texts as runs of characters, or of words where texts are long. A text that is shorter than a run is one run."""

    def __init__(self, texts: Sequence[str]) -> None:
        if np.median([text.count(" ") + 1 for text in texts] or [0]) < LONG:
            self.length = CHARACTERS
            self.units = [
                np.frombuffer(text.ljust(CHARACTERS, "\0").encode("utf-32-le", "surrogatepass"), np.uint32)
                for text in texts
            ]
        else:
            self.length = WORDS
            known = {"": 0}
            self.units = [
                np.array([known.setdefault(word, len(known)) for word in _padded(text.split())], np.uint32)
                for text in texts
            ]
        self.sizes = np.array([len(units) for units in self.units], np.int64)

    def of(self, rows: Array) -> tuple[Array, Array]:
        """The runs of some texts, text after text, each as a hash of 64 bits; and where each text's runs begin."""
        units = np.concatenate([self.units[row] for row in rows]).astype(np.uint64)
        windows = len(units) - self.length + 1
        hashed = units[:windows]
        for step in range(1, self.length):
            hashed = hashed * MIXERS[0] + units[step : windows + step]
        for shift, mixer in zip((32, 29), MIXERS[1:], strict=True):
            hashed = (hashed ^ (hashed >> np.uint64(shift))) * mixer
        ends = np.cumsum(self.sizes[rows])
        inside = np.ones(len(units), bool)
        inside[ends[:, None] - 1 - np.arange(self.length - 1)] = False
        counts = self.sizes[rows] - self.length + 1
        return hashed[inside[:windows]], np.cumsum(counts) - counts


def _padded(words: list[str]) -> list[str]:
    return words + [""] * (WORDS - len(words))


def _blocks(sizes: Array) -> Iterator[slice]:
    """Stretches of items whose sizes come to about `BLOCK`."""
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK, append=-1)) + 1
    yield from (slice(start, stop) for start, stop in pairwise([0, *ends.tolist()]))


def _signatures(runs: _Runs) -> Array:
    """`HASHES` x texts: the least value that each of as many hash functions takes on the runs of a text."""
    chance = np.random.default_rng(SEED)
    masks, factors = chance.integers(0, 1 << 32, (2, HASHES), dtype=np.uint32)
    factors |= np.uint32(1)
    found = np.empty((HASHES, len(runs.sizes)), np.uint32)
    rows = np.arange(len(runs.sizes))
    for block in _blocks(runs.sizes):
        hashed, starts = runs.of(rows[block])
        short = (hashed >> np.uint64(32)).astype(np.uint32)
        for place in range(HASHES):
            found[place, block] = np.minimum.reduceat((short ^ masks[place]) * factors[place], starts)
    return found


def _candidates(signatures: Array) -> Array:
    """Pairs of texts, lower row first, that share a band and agree in enough of the other places.

    Within a band, texts stand in the order of the places that follow it, and each meets the `NEIGHBOURS` next to it.
    """
    n = signatures.shape[1]
    by_text = np.ascontiguousarray(signatures.T)
    pairs, agreements = [np.empty((0, 2), np.intp)], [np.empty(0)]
    for first in range(0, HASHES, ROWS):
        keys = signatures[(first + np.arange(ROWS + FURTHER)) % HASHES]
        order = np.lexsort(keys[::-1])
        band = keys[:ROWS, order]
        for step in range(1, min(NEIGHBOURS, n - 1) + 1):
            shared = np.flatnonzero((band[:, step:] == band[:, :-step]).all(axis=0))
            if not len(shared):
                break
            met = np.sort(np.stack([order[shared], order[shared + step]], axis=1), axis=1)
            agreement = (by_text[met[:, 0]] == by_text[met[:, 1]]).mean(axis=1)
            pairs.append(met[agreement >= LEAST_AGREEMENT])
            agreements.append(agreement[agreement >= LEAST_AGREEMENT])
    every, agreement = np.concatenate(pairs), np.concatenate(agreements)
    _, first_of = np.unique(every[:, 0] * n + every[:, 1], return_index=True)
    every, agreement = every[first_of], agreement[first_of]
    return every[_likest(every, agreement)]


def _likest(pairs: Array, agreement: Array) -> Array:
    """Whether a pair is among the `NEIGHBOURS` that agree best, for one of its texts at least."""
    texts = pairs.T.ravel()
    order = np.lexsort((np.tile(-agreement, 2), texts))
    texts = texts[order]
    rank = np.arange(len(texts)) - np.searchsorted(texts, texts)
    kept = np.zeros(len(pairs), bool)
    kept[order[rank < NEIGHBOURS] % max(1, len(pairs))] = True
    return kept


def _jaccard(runs: _Runs, pairs: Array) -> Array:
    """How much of the runs that either text of a pair has, both have."""
    similarity = np.empty(len(pairs))
    for block in _blocks(runs.sizes[pairs].sum(axis=1)):
        rows, places = np.unique(pairs[block], return_inverse=True)
        places = places.reshape(-1, 2)
        hashed, starts = runs.of(rows)
        known, columns = np.unique(hashed, return_inverse=True)
        ends = np.append(starts, len(hashed))
        sets = sparse.csr_array((np.ones(len(hashed), np.int32), columns, ends), shape=(len(rows), len(known)))
        sets.sum_duplicates()
        sets.data[:] = 1
        shared = sets[places[:, 0]].multiply(sets[places[:, 1]]).sum(axis=1)
        similarity[block] = shared / (np.diff(sets.indptr)[places].sum(axis=1) - shared)
    return similarity
