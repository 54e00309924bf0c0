"""Which examples belong together: copies of one text, and what a user says belongs together.

No split may cut through a group, or what is learned from an example is tested on its copy.
"""

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Integers = npt.NDArray[np.int64]


def reading(text: str) -> str:
    """What a text says to a reader: in NFKC, case folded, with single spaces for all white space. Empty for blank."""
    if text.isascii():
        folded = text.lower()
    else:
        # Folding can undo the normal form, so it stands between two.
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def hashed(text: str) -> bytes:
    """A reading in few bytes; an empty one has none."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest() if text else b""


def codes(keys: Sequence[bytes | None]) -> Integers:
    """The same number for the same key, in the order of their first."""
    return np.asarray(pa.array(keys, pa.binary()).dictionary_encode().indices, dtype=np.int64)


def grouped(memberships: list[Integers]) -> Integers:
    """Groups of examples that share a code in any of the lists, transitively; -1 in a list shares nothing.

    Examples and codes are the two sides of a graph, and its connected parts are the groups.
    """
    n = size = len(memberships[0])
    ends: list[tuple[Integers, Integers]] = []
    for codes in memberships:
        have = np.flatnonzero(codes >= 0)
        ends.append((have, size + codes[have]))
        size += int(codes.max(initial=-1)) + 1
    starts, stops = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(starts), dtype=np.int8), (starts, stops)), shape=(size, size))
    return renumbered(connected_components(graph, directed=False)[1][:n])


def renumbered(groups: Integers) -> Integers:
    """The same groups, numbered from 0 in the order of their first members."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
