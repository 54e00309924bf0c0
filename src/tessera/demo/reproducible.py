"""Training that gives the same weights again: one seed, and always as many threads.

How many threads share a sum decides its rounding, and training amplifies rounding into different weights. So the number
of threads is part of what a result depends on, like the seed, and both are put back afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducibly(seed: int, threads: int) -> Iterator[None]:
    """Torch with this seed and so many threads, and afterwards as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
