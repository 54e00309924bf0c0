"""The shard format: what a capture keeps of its passes, as Parquet that any tool can read.

A shard holds some examples of one head, a row an example. `row` is the example's place in the dataset table. For an SAE
head a row lists, over the content tokens of the example, how many features are active in each (`counts`), then their
`indices` and `values` token after token; `norms` are the lengths of the tokens' vectors. For a hidden-state head a row
holds three vectors, or, where every token is kept, the tokens' vectors one after the other (`states`). The `tokens` head
says which tokens were read.

Indices are delta-encoded and floats split by byte, which packs them smallest. The manifest carries a SHA-256 of every
file. Whoever reads a capture holds each file against it, since a shard that is damaged may well be one that can be
parsed; `verify` looks at all of them. Pages carry checksums, so that other tools notice a flipped bit, too.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.columns import flat, joined, lengths, numbers
from tessera.errors import UserError
from tessera.files import read_json, replacing, sha256_file
from tessera.job import DISK_TROUBLE

MANIFEST = "manifest.json"

Ints, Floats = pa.list_(pa.int32()), pa.list_(pa.float32())
SAE_SCHEMA = pa.schema(
    [("row", pa.int32()), ("counts", Ints), ("indices", Ints), ("values", Floats), ("norms", Floats)]
)
STATES_SCHEMA = pa.schema([("row", pa.int32()), ("states", Floats)])
TOKENS_SCHEMA = pa.schema([("row", pa.int32()), ("positions", Ints), ("token_ids", Ints)])


def hidden_schema(size: int) -> pa.Schema:
    vector = pa.list_(pa.float32(), size)
    return pa.schema([("row", pa.int32()), ("last", vector), ("mean", vector), ("max", vector)])


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


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


def read(path: Path, columns: list[str] | None = None, sha256: str | None = None) -> pa.Table:
    """A shard's rows, or some columns of them; `sha256` is what the manifest says of the file.

    A file that is missing, or not that one, is a `UserError` that names it.
    """
    # A `ParquetFile` and not `read_table`, which would import pandas and read meaning into folder names.
    try:
        content = path.read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(path, "its content is not what the manifest says")
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            return file.read(columns)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except (ValueError, OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            raise
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, wrong: str) -> UserError:
    mend = f"delete {path.parent.parent / MANIFEST} and run again; only shards that are damaged are made anew"
    return UserError(str(path), f"the shard is missing or damaged ({wrong})", mend)


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


def in_order(folder: Path, head: str, columns: list[str]) -> pa.Table:
    """Some columns of a head's shards, put back into dataset order."""
    table = pa.concat_tables(list(stream(folder, head, columns)))
    return table.take(numbers(np.argsort(joined(table.column("row")), kind="stable")))


def stream(folder: Path, head: str, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of a head's shards, and which rows of the dataset they are of, shard by shard."""
    for entry in read_json(folder / MANIFEST)["shards"][head]:
        yield read(folder / head / entry["file"], ["row", *columns], entry["sha256"])


SPARSE = ["counts", "indices", "values"]


def read_sae(folder: Path, head: str) -> SparseTokens:
    """The SAE features of a head, in dataset order."""
    return _sparse(in_order(folder, head, SPARSE), read_json(folder / MANIFEST)["heads"][head]["width"])


def stream_sae(folder: Path, head: str) -> Iterator[tuple[np.ndarray, SparseTokens]]:
    """Shard by shard the rows of the dataset that it holds and their SAE features, so that one shard is in memory."""
    width = read_json(folder / MANIFEST)["heads"][head]["width"]
    for table in stream(folder, head, SPARSE):
        yield joined(table.column("row")), _sparse(table, width)


def _sparse(table: pa.Table, width: int) -> SparseTokens:
    return SparseTokens(
        width=width,
        tokens=lengths(table.column("counts")),
        counts=flat(table.column("counts")),
        indices=flat(table.column("indices")),
        values=flat(table.column("values")),
    )


def read_hidden(folder: Path, head: str, pooling: str) -> np.ndarray:
    """The pooled hidden states of a head, a row an example in dataset order."""
    table = in_order(folder, head, [pooling])
    return flat(table.column(pooling)).reshape(len(table), -1)


def read_states(folder: Path, head: str) -> tuple[np.ndarray, np.ndarray]:
    """The hidden states of every content token in dataset order, and how many tokens each example has."""
    column = in_order(folder, head, ["states"]).column("states")
    size = read_json(folder / MANIFEST)["heads"][head]["size"]
    return flat(column).reshape(-1, size), lengths(column) // size


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


def main(folders: list[str]) -> int:
    """Say what is wrong with the captures below some folders: `python -m tessera.shards results/activations`."""
    captures = sorted(path.parent for folder in folders for path in Path(folder).rglob(MANIFEST))
    problems = [problem for capture in captures for problem in verify(capture)]
    lines = [*problems, f"{len(captures)} captures, {len(problems)} files missing or damaged"]
    if problems:
        lines.append(
            "Delete manifest.json beside the damaged head's folder and run `snakemake captures` with the same config: only "
            "damaged shards are made anew."
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
