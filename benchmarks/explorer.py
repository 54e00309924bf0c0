"""What it takes to lay out the best SAE probe of a large task: seconds and memory, by the width of the SAE.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/explorer.py`. Features are drawn evenly,
which fills a pooled matrix more than those of real SAEs do. Each task is laid out by a process of its own, at the search's
end: the search itself is `probes.py`'s. A product of the same size, with all tokens in memory at once, stands beside it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from tessera import columns, examples, explorer, pooling, probes, protocols, shards
from tessera.files import sha256_file, write_json

EXAMPLES, TOKENS, L0, VOCABULARY, D_IN = 5000, 100, 80, 4096, 256
LABELS = ["first", "second", "third", "fourth"]
WIDTHS = (16_384, 65_536)
SHARD = 500
STRICT: dict[str, Any] = {"seeds": 5, "test_size": 0.2, "inner_folds": 3, "c": [0.1]}
HEAD = "wide"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one[0], Path(given.one[1]))
        return
    print("| width | what | seconds | GB at most |\n|---|---|---|---|")
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), width)
            for what in ("laid out", "pooled at once"):
                command = [sys.executable, __file__, "--one", what, name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
                told = json.loads(done.stdout.splitlines()[-1])
                print(f"| {width:,} | {what} | {told['seconds']:.1f} | {told['memory'] / 1e6:.2f} |", flush=True)


def one(what: str, results: Path) -> None:
    """One way, and what it took."""
    start = time.perf_counter()
    manifest = results / "activations/m/d/c/manifest.json"
    if what == "laid out":
        explorer.write(
            results / "explorer.json",
            model="m",
            dataset="d",
            results=results,
            cell_files=[results / "probes/sum.parquet"],
            heads={HEAD: {"sae": HEAD, "manifests": {"d": str(manifest), "again": str(manifest)}}},
            strict=STRICT,
            settings={"features": 100, "examples": 8, "predictions": 60},
        )
    else:
        pooling.pool(shards.read_sae(manifest.parent, HEAD), "sum")
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


# --- a task made up ------------------------------------------------------------------------------------------------


def make(results: Path, width: int) -> None:
    """What a run has in its results when the explorer starts."""
    rng = np.random.default_rng(width)
    codes = rng.integers(0, len(LABELS), EXAMPLES)
    make_dataset(results / "datasets", codes)
    make_tokenizer(results / "models/m")
    (results / f"saes/{HEAD}").mkdir(parents=True)
    decoder = rng.standard_normal((width, D_IN), np.float32)
    save_file({"W_dec": decoder}, results / f"saes/{HEAD}/sae_weights.safetensors")
    write_json(results / f"saes/{HEAD}/cfg.json", {"metadata": {}})
    make_capture(results / "activations/m/d/c", rng, codes, width)
    make_cells(results / "probes/sum.parquet", codes, width)


def make_dataset(folder: Path, codes: np.ndarray) -> None:
    folder.mkdir(parents=True)
    rows = {
        "id": [str(row) for row in range(EXAMPLES)],
        "text": ["words " * TOKENS] * EXAMPLES,
        "label": [LABELS[code] for code in codes],
        "subset": ["all"] * EXAMPLES,
        "split": [None] * EXAMPLES,
        "group": np.arange(EXAMPLES),
    }
    pq.write_table(pa.table(rows, schema=examples.schema("text")), folder / "d.parquet")
    write_json(folder / "d.json", {"source": {"file": "made up"}})


def make_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = {"a": 0, **{f"w{n}": n for n in range(1, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


def make_capture(folder: Path, rng: np.random.Generator, codes: np.ndarray, width: int) -> None:
    # Not at the top: the processes that are measured import no more than the job does.
    from tessera import capture, health  # noqa: PLC0415
    from tessera.passes import Kept  # noqa: PLC0415

    entries: dict[str, list[dict[str, str]]] = {HEAD: [], "tokens": []}
    for number, rows in enumerate(np.array_split(rng.permutation(EXAMPLES).astype(np.int32), EXAMPLES // SHARD)):
        # A tenth of the features leans to the label of the example.
        drawn = rng.integers(0, width, (len(rows) * TOKENS, L0))
        leaning = rng.random(drawn.shape) < 0.1
        of_label = np.repeat(codes[rows], TOKENS)[:, None]
        drawn = np.sort(np.where(leaning, drawn % (width // 8) * len(LABELS) + of_label, drawn), axis=1)
        new = np.diff(drawn, axis=1, prepend=-1) > 0
        kept = Kept()
        values = rng.gamma(2, 3, int(new.sum())).astype(np.float32)
        kept.add(counts=new.sum(axis=1).astype(np.int32), indices=drawn[new].astype(np.int32), values=values)
        kept.add(norms=np.ones(len(drawn), np.float32))
        kept.sample = health.Sample(4)
        tokens = np.full(len(rows), TOKENS)
        ids = rng.integers(0, VOCABULARY, len(drawn)).astype(np.int32)
        places = np.tile(np.arange(TOKENS, dtype=np.int32), len(rows))
        made = [columns.numbers(rows), columns.ragged(places, tokens), columns.ragged(ids, tokens)]
        for name, table in (
            (HEAD, capture.sae_table(rows, tokens, kept)),
            ("tokens", pa.Table.from_arrays(made, schema=shards.TOKENS_SCHEMA)),
        ):
            path = folder / name / shards.part_name(number)
            shards.write(path, table)
            entries[name].append({"file": path.name, "sha256": sha256_file(path)})
    write_json(folder / shards.MANIFEST, {"shards": entries, "examples": EXAMPLES, "heads": {HEAD: {"width": width}}})


def make_cells(path: Path, codes: np.ndarray, width: int) -> None:
    """What a search would have left: its cells, and predictions that are right."""
    protocol = protocols.strict(**STRICT)
    splits = protocol.splits(codes, np.arange(EXAMPLES))
    key = {"model": "m", "dataset": "d", "head": HEAD, "arm": "sae", "layer": 1, "width": width, "pooling": "sum"}
    key |= {"classifier": "l2", "regime": "full", "protocol": "strict", "subset": "all", "status": "ok", "reason": ""}
    key |= {"c": 0.1, "settings": "each feature", "validation": 0.5, "macro_f1": 0.5}
    answers = [
        {"protocol": "strict", "seed": split.seed, "classifier": "l2", "example": str(row)}
        | {"label": LABELS[codes[row]], "predicted": LABELS[codes[row]], "scores": [0.25] * len(LABELS)}
        for split in splits
        for row in np.flatnonzero(split.test)
    ]
    schema = protocols.PREDICTIONS.with_metadata({"labels": json.dumps(LABELS)})
    predictions = pa.Table.from_pylist(answers, schema)
    probes.write(columns.table([key | {"seed": split.seed} for split in splits], protocols.CELLS), predictions, path)


if __name__ == "__main__":
    main()
