"""A sparse autoencoder as `encode`, read from its canonical folder without sae-lens.

The canonical form is the folder sae-lens 6 saves for inference: cfg.json and sae_weights.safetensors. Encoding follows
the SAE's own config: what is subtracted from the input, how it is normalised, which activation decides what is active.
Features come out sparse, computed in chunks over the width so that a dense token x width matrix never exists.
What a config asks for and this module does not know is refused by name, because a guess would be a silent wrong number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tessera.errors import UserError
from tessera.files import read_json

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

TENSORS = {
    "standard": {"W_enc", "W_dec", "b_enc", "b_dec"},
    "jumprelu": {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"},
    "topk": {"W_enc", "W_dec", "b_enc", "b_dec"},
    "gated": {"W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"},
}
NORMALISATIONS = {"none", "layer_norm", "constant_norm_rescale"}
UNDERSTOOD = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations", "k", "rescale_acts_by_decoder_norm"),
}


@dataclass(frozen=True)
class SaeConfig:
    """What of an SAE's cfg.json decides a number."""

    architecture: str
    d_in: int
    d_sae: int
    hook_name: str
    apply_b_dec_to_input: bool
    normalize_activations: str
    k: int | None
    rescale_acts_by_decoder_norm: bool
    prepend_bos: bool

    @property
    def layer(self) -> int:
        """The layer whose output is read, from `blocks.N.hook_resid_post` or the next layer's `hook_resid_pre`."""
        _, number, site = self.hook_name.split(".")
        return int(number) if site == "hook_resid_post" else int(number) - 1


def read_config(folder: Path, key: str) -> SaeConfig:
    """The config of a canonical SAE folder; `key` is the config key that errors name."""
    raw = read_json(folder / CONFIG)
    meta = raw.get("metadata") or {}
    _refuse_unknown(raw, meta, key)
    return SaeConfig(
        architecture=raw["architecture"],
        d_in=raw["d_in"],
        d_sae=raw["d_sae"],
        hook_name=meta["hook_name"],
        apply_b_dec_to_input=raw.get("apply_b_dec_to_input", True),
        normalize_activations=raw.get("normalize_activations", "none"),
        k=raw.get("k"),
        rescale_acts_by_decoder_norm=raw.get("rescale_acts_by_decoder_norm", False),
        prepend_bos=bool(meta.get("prepend_bos", True)),
    )


def _refuse_unknown(raw: dict[str, Any], meta: dict[str, Any], key: str) -> None:
    other = "choose an SAE of another kind"
    for name in sorted(raw.keys() - UNDERSTOOD):
        if raw[name] not in (None, False, 0, "", "none", [], {}):
            raise UserError(key, f"the SAE's config asks for {name}={raw[name]!r}, which is not understood", other)
    if raw["architecture"] not in TENSORS:
        raise UserError(key, f"SAE architecture '{raw['architecture']}' is not supported", f"use {', '.join(TENSORS)}")
    if raw.get("normalize_activations", "none") not in NORMALISATIONS:
        wrong = (
            f"normalize_activations={raw['normalize_activations']!r} is neither folded into the weights nor known here"
        )
        raise UserError(key, wrong, other)
    if raw.get("reshape_activations", "none") != "none":
        raise UserError(key, f"reshape_activations={raw['reshape_activations']!r} is not supported", other)
    if meta.get("model_from_pretrained_kwargs"):
        wrong = (
            f"the SAE was trained on a processed model ({meta['model_from_pretrained_kwargs']}), which is not supported"
        )
        raise UserError(key, wrong, other)
    parts = str(meta.get("hook_name")).split(".")
    if len(parts) != 3 or parts[0] != "blocks" or parts[2] not in ("hook_resid_post", "hook_resid_pre"):
        wrong = f"the SAE reads '{meta.get('hook_name')}', and only the residual stream of a layer is supported"
        raise UserError(key, wrong, "choose a residual-stream SAE")
    if parts[2] == "hook_resid_pre" and parts[1] == "0":
        raise UserError(key, "the SAE reads the embeddings, before the first layer", "choose an SAE of a later layer")


@dataclass(frozen=True)
class Features:
    """Active features of some tokens: `counts` per token, and feature `indices` and `values` token after token.

    Within a token the indices ascend.
    """

    counts: Tensor
    indices: Tensor
    values: Tensor


class Sae:
    """Encodes residual-stream vectors into sparse features, in float32."""

    def __init__(self, config: SaeConfig, tensors: dict[str, Tensor]):
        self.config = config
        self.tensors = tensors

    @classmethod
    def load(cls, folder: Path, key: str, device: str = "cpu") -> "Sae":
        config = read_config(folder, key)
        needed = TENSORS[config.architecture]
        shapes = {"W_enc": (config.d_in, config.d_sae), "W_dec": (config.d_sae, config.d_in), "b_dec": (config.d_in,)}
        with safe_open(folder / WEIGHTS, framework="pt", device=device) as file:
            if absent := needed - set(file.keys()):
                raise UserError(str(folder / WEIGHTS), f"tensor {min(absent)} is missing", "fetch the SAE again")
            tensors = {name: file.get_tensor(name).to(torch.float32) for name in sorted(needed)}
        for name, tensor in tensors.items():
            expected = shapes.get(name, (config.d_sae,))
            if tuple(tensor.shape) != expected:
                wrong = f"tensor {name} has shape {tuple(tensor.shape)} where the config says {expected}"
                raise UserError(str(folder / WEIGHTS), wrong, "fetch the SAE again")
            if not bool(torch.isfinite(tensor).all()):
                raise UserError(
                    str(folder / WEIGHTS), f"tensor {name} holds values that are not finite", "fetch it again"
                )
        return cls(config, tensors)

    def encode(self, x: Tensor, chunk: int = 16384) -> Features:
        """Features of the rows of `x` [tokens, d_in], at most `chunk` of the width at a time."""
        x = self._prepared(x)
        if self.config.architecture == "topk":
            rows, columns, values = self._top_k(x, chunk)
        else:
            rows, columns, values = self._active(x, chunk)
        order = torch.argsort(rows * self.config.d_sae + columns)
        counts = torch.bincount(rows, minlength=len(x))
        return Features(counts, columns[order], values[order])

    def decode(self, features: Features) -> Tensor:
        """The reconstruction in the SAE's own input space, that is, of the normalised input."""
        starts = torch.cumsum(features.counts, 0) - features.counts
        weights, values = self.tensors["W_dec"], features.values
        if self.config.rescale_acts_by_decoder_norm:
            values = values / weights.norm(dim=-1)[features.indices]
        summed = torch.nn.functional.embedding_bag(
            features.indices, weights, starts, mode="sum", per_sample_weights=values
        )
        return summed + self.tensors["b_dec"]

    def normalised(self, x: Tensor) -> Tensor:
        """What the SAE calls its input, and what `decode` reconstructs."""
        x = x.to(torch.float32)
        if self.config.normalize_activations == "layer_norm":
            x = x - x.mean(dim=-1, keepdim=True)
            return x / (x.std(dim=-1, keepdim=True) + 1e-5)
        if self.config.normalize_activations == "constant_norm_rescale":
            return x * (self.config.d_in**0.5 / x.norm(dim=-1, keepdim=True))
        return x

    def _prepared(self, x: Tensor) -> Tensor:
        x = self.normalised(x)
        return x - self.tensors["b_dec"] if self.config.apply_b_dec_to_input else x

    def _chunks(self, x: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
        """(first column, activations before selection) for each chunk of the width."""
        t, config = self.tensors, self.config
        for start in range(0, config.d_sae, chunk):
            part = slice(start, start + chunk)
            projected = x @ t["W_enc"][:, part]
            if config.architecture == "gated":
                gate = projected + t["b_gate"][part] > 0
                magnitude = x @ (t["W_enc"][:, part] * t["r_mag"][part].exp()) + t["b_mag"][part]
                yield start, magnitude.relu() * gate
            elif config.architecture == "jumprelu":
                projected += t["b_enc"][part]
                yield start, projected.relu() * (projected > t["threshold"][part])
            elif config.architecture == "topk":
                projected += t["b_enc"][part]
                yield (
                    start,
                    projected * t["W_dec"][part].norm(dim=-1) if config.rescale_acts_by_decoder_norm else projected,
                )
            else:
                projected += t["b_enc"][part]
                yield start, projected.relu()

    def _active(self, x: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns, values = [], [], []
        for start, dense in self._chunks(x, chunk):
            row, column = dense.nonzero(as_tuple=True)
            rows.append(row)
            columns.append(column + start)
            values.append(dense[row, column])
        return torch.cat(rows), torch.cat(columns), torch.cat(values)

    def _top_k(self, x: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        """The k largest of each row over all chunks, of which the positive ones are active."""
        k = int(self.config.k or 0)
        best = x.new_full((len(x), 0), 0.0)
        where = torch.zeros((len(x), 0), dtype=torch.long, device=x.device)
        for start, dense in self._chunks(x, chunk):
            values, columns = dense.topk(min(k, dense.shape[1]), dim=1)
            best = torch.cat([best, values], dim=1)
            where = torch.cat([where, columns + start], dim=1)
            best, kept = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, kept)
        row, slot = (best > 0).nonzero(as_tuple=True)
        return row, where[row, slot], best[row, slot]
