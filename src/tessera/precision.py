"""What running in less than float32 costs: how many features of a sample flip.

The same texts are read a second time in float32, with the weights as the model's files have them. They are fetched block by
block as the pass reaches them, so that a model that fits a card only in half precision can be compared there too. A
feature flips where it is active in one reading of a token and not in the other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tessera.models import LanguageModel, Tokens, content_mask
from tessera.passes import Reader, multiplying_in


def flipped_shares(reader: Reader, batches: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """SAE head -> features that flip, as a share of those that are active in float32."""
    flipped = {head.id: 0 for head in reader.heads if head.sae and not head.matched}
    active = dict.fromkeys(flipped, 0)
    for batch in batches:
        as_run = _active(reader, batch, reader.encode)
        with in_float32(reader.model):
            exact = _active(reader, batch, "float32")
        for head, places in exact.items():
            flipped[head] += len(np.setxor1d(places, as_run[head], assume_unique=True))
            active[head] += len(places)
    return {head: flipped[head] / max(1, active[head]) for head in flipped}


@torch.inference_mode()
def _active(reader: Reader, batch: Sequence[Tokens], encode: str) -> dict[str, Any]:
    """SAE head -> its active features as numbers token * width + feature."""
    found = reader.model.read(batch)
    content = torch.from_numpy(content_mask(batch)).to(reader.model.device)
    active = {}
    for head in reader.heads:
        if head.sae and not head.matched:
            sae = reader.saes[head.sae]
            with multiplying_in(encode):
                features = sae.encode(found[head.place][content].to(torch.float32))
            tokens = torch.repeat_interleave(torch.arange(len(features.counts)), features.counts.cpu())
            active[head.id] = (tokens * sae.config.d_sae + features.indices.cpu()).numpy()
    return active


@contextmanager
def in_float32(model: LanguageModel) -> Iterator[None]:
    """Run in float32. Blocks hold float32 weights only while they run; everything outside of them does all along."""
    weights = Weights(model)
    within = {id(parameter) for parameter in model.blocks.parameters()}
    parts = [Part([p for p in model.model.parameters() if id(p) not in within], weights)]
    parts[0].widen()
    hooks = []
    for block in model.blocks:
        part = Part(list(block.parameters()), weights)
        hooks.append(block.register_forward_pre_hook(lambda module, given, part=part: part.widen(), prepend=True))
        hooks.append(block.register_forward_hook(lambda module, given, output, part=part: part.restore()))
        parts.append(part)
    try:
        yield
    finally:
        # The deepest block may have stopped half-way, before it was converted back.
        for part in parts:
            part.restore()
        for hook in hooks:
            hook.remove()


class Part:
    """Some parameters, which can be made float32 and be given back what they held."""

    def __init__(self, parameters: Sequence[nn.Parameter], weights: "Weights"):
        self.parameters, self.weights = parameters, weights
        self.held: list[Tensor] = []

    def widen(self) -> None:
        self.held = [parameter.data for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.data = self.weights.exact(parameter)

    def restore(self) -> None:
        for parameter, data in zip(self.parameters, self.held, strict=False):
            parameter.data = data
        self.held = []


class Weights:
    """A model's parameters as its files have them, in float32."""

    def __init__(self, model: LanguageModel):
        self.names = {id(parameter): name for name, parameter in model.model.named_parameters()}
        self.files: dict[str, Any] = {}
        for path in sorted(model.folder.glob("*.safetensors")):
            file = safe_open(path, framework="pt")
            self.files.update(dict.fromkeys(file.keys(), file))
        # A causal model's files name the parameters of the model inside it with a prefix; so do those of a vision-language
        # model, for the language tower that alone reads texts.
        towers = ("language_model.model.", "language_model.", "model.language_model.")
        self.prefixes = ("", f"{model.model.base_model_prefix}.", "model.", *towers)

    def exact(self, parameter: nn.Parameter) -> Tensor:
        """What is in the files. A parameter that transformers puts together from several there is taken as it is."""
        name = self.names[id(parameter)]
        # Files of vision-language models may know one more level within their towers than the model has.
        deeper = name.replace("language_model.", "language_model.model.", 1)
        deeper = deeper.replace("vision_tower.", "vision_tower.vision_model.", 1)
        for key in (prefix + spelt for spelt in (name, deeper) for prefix in self.prefixes):
            if key in self.files and self.files[key].get_slice(key).get_shape() == list(parameter.shape):
                found: Tensor = self.files[key].get_tensor(key).to(parameter.device, torch.float32)
                return found
        return parameter.data.float()
