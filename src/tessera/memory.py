"""Telling that memory ran out, so that a batch can be begun again with less in it."""

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out; only CUDA has an exception of its own for that."""
    told = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in told for words in ("out of memory", "can't allocate memory")
    )


def release() -> None:
    """Give back what a failed batch had taken, as far as torch still holds it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
