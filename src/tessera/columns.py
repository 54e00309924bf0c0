"""Arrow columns from numpy arrays and back, by their buffers.

pyarrow's own conversions import pandas, which costs every job 0.3 s, to learn whether a value is one of pandas'.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tessera.errors import UserError

Array = npt.NDArray[Any]

# Kinds of numbers in our files, and numpy's name for each.
NUMPY = {pa.int32(): np.int32, pa.int64(): np.int64, pa.float32(): np.float32, pa.float64(): np.float64}
ARROW = {np.dtype(kind): arrow for arrow, kind in NUMPY.items()}

# A list column's offsets are 32-bit integers.
LARGEST = 2**31 - 1


def numbers(values: Array) -> pa.Array:
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(ARROW[values.dtype], len(values), [None, pa.py_buffer(values)])


def ragged(values: Array, lengths: Array) -> pa.ListArray:
    """A list column from all its values in a row and the length of each list."""
    if len(values) > LARGEST:
        wrong = f"a shard would hold {len(values)} numbers in one column, which is more than {LARGEST}"
        raise UserError("capture.shard_tokens", wrong, "lower it")
    ends = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=ends[1:])
    inner = numbers(values)
    return pa.Array.from_buffers(pa.list_(inner.type), len(lengths), [None, pa.py_buffer(ends)], children=[inner])


def rows(values: Array) -> pa.ListArray:
    """A list column of the rows of a matrix."""
    return ragged(values.ravel(), np.full(len(values), values.shape[1]))


def vectors(values: Array) -> pa.FixedSizeListArray:
    """A column of vectors of one length, the rows of a matrix."""
    inner = numbers(np.ascontiguousarray(values, np.float32).ravel())
    kind = pa.list_(inner.type, values.shape[1])
    return pa.Array.from_buffers(kind, len(values), [None], children=[inner])


def optional(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column of text or numbers, in which None is a null."""
    here = np.array([value is not None for value in values], dtype=bool)
    nulls = None if here.all() else pa.py_buffer(np.packbits(here, bitorder="little"))
    if kind == pa.string():
        spelled = [b"" if value is None else value.encode() for value in values]
        ends = np.cumsum([0, *map(len, spelled)]).astype(np.int32)
        buffers = [nulls, pa.py_buffer(ends), pa.py_buffer(b"".join(spelled))]
    else:
        found = np.array([0 if value is None else value for value in values], NUMPY[kind])
        buffers = [nulls, pa.py_buffer(found)]
    return pa.Array.from_buffers(kind, len(values), buffers)


def table(given: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table of rows of text and numbers, in which a key that is missing is a null."""
    made = [optional([row.get(field.name) for row in given], field.type) for field in schema]
    return pa.table(made, schema=schema)


def array(column: pa.Array) -> Array:
    """A column of numbers without nulls as it lies in memory."""
    kind = NUMPY[column.type]
    found = np.frombuffer(column.buffers()[1], dtype=kind) if len(column) else np.zeros(0, dtype=kind)
    return found[column.offset : column.offset + len(column)]


def joined(column: pa.ChunkedArray) -> Array:
    """All numbers of a column, in order."""
    parts = [array(chunk) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=NUMPY[column.type])


def flat(column: pa.ChunkedArray) -> Array:
    """All numbers of a list column, in order."""
    return joined(pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=column.type.value_type))


def lengths(column: pa.ChunkedArray) -> Array:
    """The length of each list of a column."""
    chunks = [np.diff(array(chunk.offsets)) for chunk in column.chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int32)
