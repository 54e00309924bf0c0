"""The shard format: what a capture keeps of its passes, as Parquet that any tool can read.

A shard holds some examples of one head, a row an example. `row` is the example's place in the dataset table. For an SAE
head a row lists, over the content tokens of the example, how many features are active in each (`counts`), then their
`indices` and `values` token after token; `norms` and `errors` are the squared length of each token's vector and of what
the SAE leaves of it. For a hidden-state head a row holds three vectors. The `tokens` head says which tokens were read.

Indices are delta-encoded and floats split by byte, which packs them smallest. Pages carry checksums, so that reading
notices a flipped bit; the manifest carries a SHA-256 of every file, so that `verify` can name a damaged one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.errors import UserError
from tessera.files import read_json, replacing, sha256_file

MANIFEST = "manifest.json"

Ints, Floats = pa.list_(pa.int32()), pa.list_(pa.float32())
SAE_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("counts", Ints),
        ("indices", Ints),
        ("values", Floats),
        ("norms", Floats),
        ("errors", Floats),
    ]
)
TOKENS_SCHEMA = pa.schema([("row", pa.int32()), ("positions", Ints), ("token_ids", Ints)])


def hidden_schema(width: int) -> pa.Schema:
    vector = pa.list_(pa.float32(), width)
    return pa.schema([("row", pa.int32()), ("last", vector), ("mean", vector), ("max", vector)])


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def ragged(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """A list column from all its values in a row and the length of each list."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32, copy=False).ravel()), values.shape[1])


def write(path: Path, table: pa.Table) -> None:
    encodings: dict[str, str] = {}
    for field in table.schema:
        if pa.types.is_list(field.type):
            packed = "DELTA_BINARY_PACKED" if pa.types.is_integer(field.type.value_type) else "BYTE_STREAM_SPLIT"
            encodings[f"{field.name}.list.element"] = packed
        elif pa.types.is_fixed_size_list(field.type):
            encodings[f"{field.name}.list.element"] = "BYTE_STREAM_SPLIT"
        else:
            encodings[field.name] = "DELTA_BINARY_PACKED"
    with replacing(path) as partial:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            use_dictionary=False,
            column_encoding=encodings,
            write_page_checksum=True,
            write_statistics=False,
        )


def read(path: Path) -> pa.Table:
    """A shard's rows; a damaged file is a `UserError` that names it."""
    try:
        # A `ParquetFile` and not `read_table`, which would import pandas and read meaning into folder names.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except (OSError, pa.ArrowException) as error:
        mend = "delete it and the manifest beside its folder, then run again; only it is made anew"
        raise UserError(str(path), f"the shard is missing or damaged ({error})", mend) from None


def flat(table: pa.Table, column: str) -> np.ndarray:
    """All values of a list column, in order."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table.column(column).chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.float32)


def lengths(table: pa.Table, column: str) -> np.ndarray:
    """The length of each list of a column."""
    chunks = [np.diff(chunk.offsets.to_numpy()) for chunk in table.column(column).chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class SparseTokens:
    """The SAE features of every content token of a dataset, example after example in dataset order.

    `tokens[e]` is the number of content tokens of example e, `counts[t]` the number of active features of token t, and
    `indices` and `values` run through them token after token.
    """

    width: int
    tokens: np.ndarray
    counts: np.ndarray
    indices: np.ndarray
    values: np.ndarray


def parts(folder: Path, head: str) -> Iterator[pa.Table]:
    """A head's shards in the manifest's order."""
    for shard in read_json(folder / MANIFEST)["shards"][head]:
        yield read(folder / head / shard["file"])


def read_sae(folder: Path, head: str) -> SparseTokens:
    """A head's shards put back into dataset order."""
    manifest = read_json(folder / MANIFEST)
    table = pa.concat_tables(list(parts(folder, head)))
    table = table.take(pa.array(np.argsort(table.column("row").to_numpy(), kind="stable")))
    return SparseTokens(
        width=manifest["heads"][head]["width"],
        tokens=lengths(table, "counts"),
        counts=flat(table, "counts"),
        indices=flat(table, "indices"),
        values=flat(table, "values"),
    )


def read_hidden(folder: Path, head: str, pooling: str) -> np.ndarray:
    """The pooled hidden states of a head, a row an example in dataset order."""
    table = pa.concat_tables([part.select(["row", pooling]) for part in parts(folder, head)])
    rows = table.column("row").to_numpy()
    column = table.column(pooling).combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    ordered = np.empty_like(values)
    ordered[rows] = values
    return ordered


def verify(folder: Path) -> list[str]:
    """What is wrong with a capture's files, a line each; nothing if it is whole."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    problems = []
    for head, shards in manifest["shards"].items():
        for shard in shards:
            path = folder / head / shard["file"]
            if not path.is_file():
                problems.append(f"{path}: missing")
            elif path.stat().st_size != shard["bytes"]:
                problems.append(f"{path}: {path.stat().st_size} bytes where the manifest says {shard['bytes']}")
            elif sha256_file(path) != shard["sha256"]:
                problems.append(f"{path}: its content is not what the manifest says")
    return problems
