"""How fast the features of a head are read back: made-up ones, through the writer and the reader of shards.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/reading.py`.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tessera import capture, health, pooling, shards
from tessera.columns import Array
from tessera.files import sha256_file
from tessera.passes import Kept

L0, WIDTH, EXAMPLES, TOKENS = 80, 16_384, 4000, 100


def main() -> None:
    rng = np.random.default_rng(0)
    tokens = np.full(EXAMPLES, TOKENS)
    counts = rng.poisson(L0, tokens.sum()).astype(np.int32)
    indices = np.concatenate([np.sort(rng.choice(WIDTH, n, replace=False)) for n in counts]).astype(np.int32)
    values = rng.gamma(2, 3, len(indices)).astype(np.float32)
    decoded = (indices.nbytes + values.nbytes + counts.nbytes) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_head(folder, tokens, counts, indices, values)
        on_disk = sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e6
        print(f"{tokens.sum():,} tokens, {L0} features each: {decoded:,.0f} MB, {on_disk:,.0f} MB on disk.\n")
        print("| what | seconds | MB/s |\n|---|---|---|")
        row("features of every token, in dataset order", decoded, lambda: shards.read_sae(folder, "h"))
        row("the same as a CSR matrix of tokens", decoded, lambda: pooling.of_tokens(shards.read_sae(folder, "h")))
        for way in ("sum", "max", "last", "top-20"):
            row(f"as a CSR matrix of examples, {way}", decoded, partial(pooled, folder, way))


def pooled(folder: Path, way: str) -> object:
    return pooling.pool(shards.read_sae(folder, "h"), way)


def row(what: str, decoded: float, go: Callable[[], object]) -> None:
    go()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        go()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    print(f"| {what} | {seconds:.2f} | {decoded / seconds:,.0f} |", flush=True)


def write_head(folder: Path, tokens: Array, counts: Array, indices: Array, values: Array) -> None:
    pieces = np.array_split(np.random.default_rng(1).permutation(len(tokens)), 6)
    ends, of_token = np.cumsum(tokens), np.cumsum(counts)
    entries = []
    for number, rows in enumerate(pieces):
        places = np.concatenate([np.arange(ends[row] - tokens[row], ends[row]) for row in rows])
        spots = np.concatenate([np.arange(of_token[place] - counts[place], of_token[place]) for place in places])
        kept = Kept()
        kept.add(counts=counts[places], indices=indices[spots], values=values[spots])
        kept.add(norms=np.ones(len(places), np.float32))
        kept.sample = health.Sample(4)
        path = folder / "h" / shards.part_name(number)
        shards.write(path, capture.sae_table(rows.astype(np.int32), tokens[rows], kept))
        entries.append({"file": path.name, "sha256": sha256_file(path)})
    manifest = {"shards": {"h": entries}, "heads": {"h": {"width": 16_384}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
