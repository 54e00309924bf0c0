"""What the capture benchmarks share: a random model, random SAEs and random texts. Nothing is downloaded."""

import ctypes
import gc
import json
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from tessera import capture, shards
from tessera.examples import Table
from tessera.models import LanguageModel, Tokens
from tessera.plan import Head
from tessera.saes import CARD_BLOCK, CARD_WIDTH, CPU_BLOCK, CPU_WIDTH, Sae

# Features that are active in a token, about.
L0 = 80
KEY = "benchmark"
BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"


def make_model(folder: Path, size: dict[str, Any], dtype: str) -> None:
    """A random Gemma 2 with a tokenizer whose words are single tokens."""
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = Gemma2Config(**size, **special, max_position_embeddings=8192, torch_dtype=dtype)
    model = Gemma2ForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    words = {PAD: 0, BOS: 1, EOS: 2, **{f"w{n}": n for n in range(3, size["vocab_size"])}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=EOS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD).save_pretrained(
        folder
    )


def make_sae(folder: Path, states: torch.Tensor, layer: int, width: int) -> None:
    """A random JumpReLU SAE with about `L0` active features on `states`, saved as sae-lens saves it."""
    torch.manual_seed(layer * 1000 + width % 997)
    size = states.shape[1]
    encoder = torch.randn(size, width) / size**0.5
    sample = states[:256] @ encoder[:, :4096]
    threshold = torch.full((width,), float(torch.quantile(sample.flatten()[::7], 1 - L0 / width)))
    folder.mkdir(parents=True)
    tensors = {"W_enc": encoder, "W_dec": encoder.T.contiguous(), "threshold": threshold}
    save_file({**tensors, "b_enc": torch.zeros(width), "b_dec": torch.zeros(size)}, folder / "sae_weights.safetensors")
    config = {"architecture": "jumprelu", "d_in": size, "d_sae": width, "apply_b_dec_to_input": False}
    place = {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": KEY, "prepend_bos": True}
    meta = {**place, "sae_lens_version": version("sae-lens")}
    more = {"dtype": "float32", "device": "cpu", "normalize_activations": "none", "reshape_activations": "none"}
    (folder / "cfg.json").write_text(json.dumps({**config, **more, "metadata": meta}))


def make_texts(count: int, shortest: int, longest: int, vocabulary: int) -> list[str]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, count)
    return [" ".join(f"w{word}" for word in rng.integers(3, vocabulary, length)) for length in lengths]


def table_of(texts: list[str]) -> Table:
    words = np.array(["a"] * len(texts), dtype=object)
    return Table(
        [str(i) for i in range(len(texts))], texts, None, words, words, [None] * len(texts), np.arange(len(texts))
    )


class World:
    """Model, SAEs and texts of one size."""

    def __init__(self, folder: Path, size: dict[str, Any], device: str, encode: str):
        self.folder, self.size, self.device, self.encode = folder, size, device, encode
        self.model_folder = folder / "model"
        make_model(self.model_folder, size["model"], size["dtype"])
        self.model = self.opened()
        texts = make_texts(8, 60, 60, size["model"]["vocab_size"])
        found = self.model.read(self.model.tokenize(texts, 100))
        self.heads = []
        for layer in size["layers"]:
            states = found[layer, "resid_post"].float().cpu().flatten(0, 1)
            for width in size["widths"]:
                name = f"l{layer}-{width}"
                make_sae(folder / name, states, layer, width)
                self.heads.append(Head(name, layer, name))
        self.saes = {head.id: Sae(folder / head.id, KEY, device) for head in self.heads}

    def opened(self) -> LanguageModel:
        return LanguageModel(
            self.model_folder,
            places=[(layer, "resid_post") for layer in self.size["layers"]],
            dtype=self.size["dtype"],
            attention="eager",
            device=self.device,
            key=KEY,
        )

    def batches(self, texts: list[str]) -> list[list[Tokens]]:
        tokens = self.model.tokenize(texts, 4096)
        order = sorted(range(len(tokens)), key=lambda row: (-len(tokens[row]), row))
        return [[tokens[row] for row in rows] for rows in capture.cut(order, tokens, self.size["batch_tokens"])]

    @property
    def block(self) -> tuple[int, int]:
        """Tokens and features that the engine multiplies at once."""
        if self.device == "cpu":
            return CPU_BLOCK // CPU_WIDTH, CPU_WIDTH
        return CARD_BLOCK // CARD_WIDTH, CARD_WIDTH

    def encoder(self, head: Head) -> torch.Tensor:
        found = self.saes[head.id].W_enc
        if found is None:
            raise RuntimeError("the benchmark's encoders are to fit the device")
        return found

    def capture(self, texts: list[str], folder: Path, heads: list[Head] | None = None) -> dict[str, float]:
        """Ours; what run.json says of it."""
        heads = heads or self.heads
        capture.run(
            folder,
            model=(KEY, self.model_folder, ""),
            saes={head.id: (self.folder / head.id, "") for head in heads},
            heads=heads,
            table=table_of(texts),
            dataset_sha256="",
            reading=capture.Reading(self.size["dtype"], "eager", 4096, self.encode),
            effort=capture.Effort(self.device, self.size["batch_tokens"], 65_536),
        )
        if damaged := shards.verify(folder):
            raise RuntimeError(damaged[0])
        found: dict[str, float] = json.loads((folder / "run.json").read_text())
        return found


class Watch:
    """The largest memory of this process that no file backs, or of a card, while it is open; and how much it grew by."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.done = device, threading.Event()
        self.thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        gc.collect()
        # What earlier ways have freed and the allocator has kept would hide what this one takes.
        ctypes.CDLL(None).malloc_trim(0)
        self.peak = self.before = self._held()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    @property
    def grown(self) -> int:
        return self.peak - self.before

    def _held(self) -> int:
        if self.device.startswith("cuda"):
            return torch.cuda.memory_allocated()
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line]
        return int(line.split()[1]) * 1024

    def _look(self) -> None:
        while not self.done.is_set():
            self.peak = max(self.peak, self._held())
            time.sleep(0.005)


def timed(go: Callable[[], None], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    go()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start
