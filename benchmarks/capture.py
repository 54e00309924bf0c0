"""What capturing costs: tokens a second of the capture engine, beside its limit and beside other ways.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/capture.py`. Nothing is downloaded: the
model and the SAEs are random, with thresholds set so that about `L0` features are active.

(a) a bare forward pass up to the deepest layer, in our batches;
(b) the same and every SAE's product with its encoder, nothing kept: the limit;
(c) ours, from text to verified shards, less opening the model, which is reported apart;
(d) the published way: for each layer and width a full forward with logits and all hidden states, in batches of eight as
    they come, one compressed dense file a sample, read back and encoded one at a time;
(e) TransformerLens's cache and sae-lens's `encode`, batches of eight, the active features kept.

(b) and (c) take turns, and the ratio is the median of the rounds' ratios; (d) and (e) run on a part of the texts, since
they are slow. MB is the most memory that a way takes beyond what was held before, mapped weight files aside; (d) and (e)
open a model of their own. `--device cuda` measures all of it on a card, with a larger model.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from world import BOS, L0, Watch, World, make_texts, timed

from tessera.models import content_mask
from tessera.passes import multiplying_in

SIZES: dict[str, dict[str, Any]] = {
    # Gemma 2's hidden size, depth and share of the vocabulary in a pass, with blocks a third as heavy as the 2B's.
    "cpu": {
        "model": {"hidden_size": 2304, "intermediate_size": 2304, "num_attention_heads": 4, "num_key_value_heads": 2}
        | {"head_dim": 256, "num_hidden_layers": 26, "vocab_size": 65_536},
        "layers": (5, 12, 19),
        "widths": (4096, 16384),
        "dtype": "float32",
        "texts": {"short": (160, 12, 20), "long": (8, 360, 400), "mixed": (48, 6, 120)},
        "batch_tokens": 2048,
        "slow_texts": {"short": 32, "long": 8, "mixed": 16},
    },
    # Gemma-2-2B itself, with the widths of Gemma Scope.
    "cuda": {
        "model": {"hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8, "num_key_value_heads": 4}
        | {"head_dim": 256, "num_hidden_layers": 26, "vocab_size": 256_000},
        "layers": (5, 12, 19),
        "widths": (16384, 65536),
        "dtype": "bfloat16",
        "texts": {"short": (40_000, 12, 20), "long": (1600, 360, 400), "mixed": (10_000, 6, 120)},
        "batch_tokens": 16_384,
        "slow_texts": {"short": 256, "long": 16, "mixed": 128},
    },
}


# --- the ways ------------------------------------------------------------------------------------------------------


def bare(world: World, texts: list[str], encode: bool) -> float:
    """Seconds of the forward pass, and of the products with the encoders."""
    batches = world.batches(texts)
    tokens, width = world.block
    product = torch.empty(tokens, width, device=world.device)

    def multiply(x: torch.Tensor, encoder: torch.Tensor) -> None:
        """In blocks that stay in the cache, into memory that is there: a whole product would wait for memory."""
        for part in encoder.split(width, dim=1):
            for rows in x.split(tokens):
                torch.mm(rows, part, out=product[: len(rows), : part.shape[1]])

    def go() -> None:
        for batch in batches:
            found = world.model.read(batch)
            if encode:
                content = torch.from_numpy(content_mask(batch)).to(world.device)
                with multiplying_in(world.encode), torch.inference_mode():
                    for head in world.heads:
                        multiply(found[head.place][content].float(), world.encoder(head))

    return timed(go, world.device)


def published(world: World, texts: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and bytes of the published way."""
    dtype = getattr(torch, world.size["dtype"])
    model = AutoModelForCausalLM.from_pretrained(world.model_folder, attn_implementation="eager", dtype=dtype)
    model = model.to(world.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(world.model_folder)
    saes = {head.id: SAE.load_from_disk(world.folder / head.id, device=world.device) for head in world.heads}

    @torch.no_grad()
    def go() -> None:
        for head in world.heads:
            (folder / head.id).mkdir(parents=True)
            for start in range(0, len(texts), 8):
                given = [f"{BOS} {text}" for text in texts[start : start + 8]]
                inputs = tokenizer(given, return_tensors="pt", padding=True).to(world.device)
                states = model(**inputs, output_hidden_states=True).hidden_states[head.layer + 1]
                for place, of_text in enumerate(states):
                    np.savez_compressed(folder / head.id / f"{start + place}.npz", x=of_text.float().cpu().numpy())
            for number in range(len(texts)):
                x = torch.from_numpy(np.load(folder / head.id / f"{number}.npz")["x"]).to(world.device)
                saes[head.id].encode(x).sum(dim=0).cpu()

    seconds = timed(go, world.device)
    return seconds, sum(path.stat().st_size for path in folder.rglob("*.npz"))


def cached(world: World, texts: list[str]) -> float:
    """Seconds of a TransformerLens cache of a model of the same shape, and sae-lens's encode."""
    size = world.size["model"]
    config = HookedTransformerConfig(
        n_layers=size["num_hidden_layers"],
        d_model=size["hidden_size"],
        n_ctx=512,
        d_head=size["head_dim"],
        n_heads=size["num_attention_heads"],
        n_key_value_heads=size["num_key_value_heads"],
        d_mlp=size["intermediate_size"],
        d_vocab=size["vocab_size"],
        act_fn="gelu_pytorch_tanh",
        gated_mlp=True,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=size["head_dim"],
        use_normalization_before_and_after=True,
        attn_scores_soft_cap=50.0,
        dtype=getattr(torch, world.size["dtype"]),
        device=world.device,
        seed=0,
    )
    model = HookedTransformer(config)
    saes = {head.id: SAE.load_from_disk(world.folder / head.id, device=world.device) for head in world.heads}
    tokens = world.model.tokenize(texts, 4096)
    hooks = {f"blocks.{head.layer}.hook_resid_post" for head in world.heads}
    deepest = max(head.layer for head in world.heads)

    @torch.no_grad()
    def go() -> None:
        for start in range(0, len(tokens), 8):
            batch = tokens[start : start + 8]
            ids = np.zeros((len(batch), max(map(len, batch))), dtype=np.int64)
            for row, text in enumerate(batch):
                ids[row, : len(text)] = text.ids
            given = torch.from_numpy(ids).to(world.device)
            _, cache = model.run_with_cache(given, names_filter=lambda name: name in hooks, stop_at_layer=deepest + 1)
            content = torch.from_numpy(content_mask(batch)).to(world.device)
            for head in world.heads:
                saes[head.id].encode(cache[f"blocks.{head.layer}.hook_resid_post"][content].float()).to_sparse().cpu()

    return timed(go, world.device)


# --- tables --------------------------------------------------------------------------------------------------------


def compare(world: World, rounds: int) -> None:
    print(
        f"{len(world.heads)} SAEs, about {L0} active features each; {world.size['dtype']}, encode in {world.encode}.\n"
    )
    print("| texts | way | tokens | tokens/s | share of (b) | bytes a token | MB |\n|---|---|---|---|---|---|---|")
    for shape, (count, shortest, longest) in world.size["texts"].items():
        texts = make_texts(count, shortest, longest, world.size["model"]["vocab_size"])
        few = texts[: world.size["slow_texts"][shape]]
        content = sum(len(text.split()) for text in texts)
        content_few = sum(len(text.split()) for text in few)
        # Once without looking at the clock, so that no way pays for reading the weights from their files.
        bare(world, texts, encode=True)
        found: dict[str, list[float]] = {"a": [], "b": [], "c": []}
        memory = dict.fromkeys("abcde", 0)
        opening, written = [], 0
        for number in range(rounds):
            with watching(world, memory, "a"):
                found["a"].append(bare(world, texts, encode=False))
            with watching(world, memory, "b"):
                found["b"].append(bare(world, texts, encode=True))
            folder = world.folder / f"{shape}-{number}"
            with watching(world, memory, "c"):
                told = world.capture(texts, folder)
            found["c"].append(told["seconds"] - told["to_open"])
            opening.append(told["to_open"])
            written = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        limit = statistics.median(found["b"]) / content
        for way, seconds in found.items():
            ratio = statistics.median(b / own for b, own in zip(found["b"], seconds, strict=True))
            size = written / content if way == "c" else None
            row(shape, way, content, statistics.median(seconds), ratio, size, memory[way])
        with watching(world, memory, "d"):
            seconds, dense = published(world, few, world.folder / f"{shape}-published")
        row(shape, "d", content_few, seconds, limit * content_few / seconds, dense / content_few, memory["d"])
        with watching(world, memory, "e"):
            seconds = cached(world, few)
        row(shape, "e", content_few, seconds, limit * content_few / seconds, None, memory["e"])
        print(f"\nOpening the model and the SAEs took (c) {statistics.median(opening):.1f} s before.\n")


@contextmanager
def watching(world: World, memory: dict[str, int], way: str) -> Iterator[None]:
    """Note the most memory that a way has taken beyond what was there before it."""
    with Watch(world.device) as watch:
        yield
    memory[way] = max(memory[way], watch.grown)


def row(shape: str, way: str, tokens: int, seconds: float, ratio: float, size: float | None, memory: int) -> None:
    shown = "" if size is None else f"{size:,.0f}"
    rate = f"{tokens / seconds:,.0f} | {ratio:.3f}"
    print(f"| {shape} | ({way}) | {tokens:,} | {rate} | {shown} | {memory / 1e6:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encode", choices=["float32", "tf32"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="*", help="short, long, mixed; all of them where absent")
    given = parser.parse_args()
    size = SIZES["cuda" if given.device.startswith("cuda") else "cpu"]
    texts = {shape: of for shape, of in size["texts"].items() if given.shapes is None or shape in given.shapes}
    with tempfile.TemporaryDirectory() as name:
        compare(World(Path(name), {**size, "texts": texts}, given.device, given.encode), given.rounds)


if __name__ == "__main__":
    main()
