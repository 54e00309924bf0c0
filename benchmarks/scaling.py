"""How the cost and the memory of a capture grow: with examples, which cost should grow with and memory should not, and
with the width of an SAE, which memory beyond the weights should not grow with either.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/scaling.py`. Each capture runs in a
process of its own. Its memory is what no file backs: weights are mapped from their files and can be dropped at any time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from world import KEY, Watch, World, make_texts, table_of

from tessera import capture
from tessera.plan import Head

SIZE: dict[str, Any] = {
    "model": {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1}
    | {"head_dim": 64, "num_hidden_layers": 2, "vocab_size": 4096},
    "layers": (1,),
    "dtype": "float32",
    "batch_tokens": 4096,
}
# Small, so that a thousand short texts fill several shards.
SHARD_TOKENS = 4096
# Examples and width.
RUNS = [(1_000, 2048), (10_000, 2048), (100_000, 2048), (1_000, 16_384), (1_000, 131_072), (1_000, 1_048_576)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(Path(given.one[0]), given.one[1])
        return
    print(
        "| examples | width | tokens | seconds | microseconds a token | MB beyond the weights |\n|---|---|---|---|---|---|"
    )
    for examples, width in RUNS:
        with tempfile.TemporaryDirectory() as name:
            world = World(Path(name), {**SIZE, "widths": (width,)}, "cpu", "float32")
            texts = make_texts(examples, 4, 12, SIZE["model"]["vocab_size"])
            Path(name, "texts.json").write_text(json.dumps(texts))
            command = [sys.executable, __file__, "--one", name, world.heads[0].id]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
            told = json.loads(done.stdout.splitlines()[-1])
        tokens = sum(len(text.split()) for text in texts)
        rate, memory = 1e6 * told["seconds"] / tokens, told["memory"] / 1e6
        print(
            f"| {examples:,} | {width:,} | {tokens:,} | {told['seconds']:.1f} | {rate:.1f} | {memory:,.0f} |",
            flush=True,
        )


def one(folder: Path, sae: str) -> None:
    """One capture, and what it took."""
    texts = json.loads((folder / "texts.json").read_text())
    watch = Watch()
    with watch:
        capture.run(
            folder / "captured",
            model=(KEY, folder / "model", ""),
            saes={sae: (folder / sae, "")},
            heads=[Head(sae, SIZE["layers"][0], sae)],
            table=table_of(texts),
            dataset_sha256="",
            reading=capture.Reading("float32", "eager", 4096),
            effort=capture.Effort("cpu", SIZE["batch_tokens"], SHARD_TOKENS),
        )
    told = json.loads((folder / "captured/run.json").read_text())
    print(json.dumps({"seconds": told["seconds"] - told["to_open"], "memory": watch.peak}))


if __name__ == "__main__":
    main()
