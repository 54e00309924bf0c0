"""A sparse autoencoder as `encode`, read from its canonical folder without sae-lens.

The canonical form is the folder sae-lens 6 saves for inference: cfg.json and sae_weights.safetensors. Encoding follows
the SAE's own config: where it reads, what is subtracted from its input, how that is normalised, which activation decides
what is active. What a config asks for and this module does not know is refused by name, because a guess would be a silent
wrong number.

Features come out sparse. They are computed in blocks of tokens x width that are small enough to be looked through while
they are still in the cache, so a dense token x width matrix never exists and memory does not grow with the width. The
weights stay in their memory-mapped file: on a CPU they are used from there, on a card they are copied once if they fit
beside the model, and otherwise chunk by chunk at each use. The decoder is needed for measuring alone and is never copied.
"""

import re
from collections.abc import Callable
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
    # Our own: the largest of random features, in each token as many as another SAE has.
    "random": {"W_enc", "W_dec", "b_enc", "b_dec"},
}
NORMALISATIONS = {"none", "layer_norm", "constant_norm_rescale"}
UNDERSTOOD = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations", "k", "rescale_acts_by_decoder_norm"),
}
# How sae-lens calls the sites of a block. The heads' outputs (hook_z) come flattened here, as their projection has them.
SITES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "hook_mlp_out": "mlp_out",
    "attn.hook_z": "attn_z",
}
HOOK = re.compile(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, SITES))})")
# Ways to process a model that change nothing at the sites above.
HARMLESS = {"fold_ln", "center_unembed"}

# Numbers in a block of tokens x width: what fits a core's cache, and what keeps a card busy.
CPU_BLOCK, CARD_BLOCK = 1 << 20, 1 << 26
CPU_WIDTH, CARD_WIDTH = 1 << 11, 1 << 14


@dataclass(frozen=True)
class SaeConfig:
    """What of an SAE's cfg.json decides a number."""

    architecture: str
    d_in: int
    d_sae: int
    layer: int
    site: str
    centred: bool
    apply_b_dec_to_input: bool
    normalize_activations: str
    k: int | None
    rescale_acts_by_decoder_norm: bool


def read_config(folder: Path, key: str) -> SaeConfig:
    """The config of a canonical SAE folder; `key` is the config key that errors name."""
    raw = read_json(folder / CONFIG)
    meta = raw.get("metadata") or {}
    layer, site = _place(raw, meta, key)
    _refuse_unknown(raw, meta, site, key)
    return SaeConfig(
        architecture=raw["architecture"],
        d_in=raw["d_in"],
        d_sae=raw["d_sae"],
        layer=layer,
        site=site,
        centred=bool((meta.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights")),
        apply_b_dec_to_input=raw.get("apply_b_dec_to_input", True),
        normalize_activations=raw.get("normalize_activations", "none"),
        k=raw.get("k"),
        rescale_acts_by_decoder_norm=raw.get("rescale_acts_by_decoder_norm", False),
    )


OTHER = "choose an SAE of another kind"


def _place(raw: dict[str, Any], meta: dict[str, Any], key: str) -> tuple[int, str]:
    if not (name := meta.get("hook_name")):
        # sae-lens drops what stands under metadata where it finds no version of its own there.
        mend = "save it again with sae-lens 6, which writes hook_name and sae_lens_version under metadata"
        raise UserError(key, f"the {CONFIG} of the SAE does not say which place of the model it reads", mend)
    found = HOOK.fullmatch(str(name))
    if not found:
        raise UserError(key, f"the SAE reads '{name}', which is not one of the sites {', '.join(SITES)}", OTHER)
    if meta.get("hook_head_index") is not None:
        raise UserError(key, f"the SAE reads head {meta['hook_head_index']} alone, which is not supported", OTHER)
    site = SITES[found[2]]
    reshaped = raw.get("reshape_activations", "none")
    if reshaped not in ("none", "hook_z" if site == "attn_z" else "none"):
        raise UserError(key, f"reshape_activations={reshaped!r} at '{name}' is not supported", OTHER)
    return int(found[1]), site


def _refuse_unknown(raw: dict[str, Any], meta: dict[str, Any], site: str, key: str) -> None:
    for name in sorted(raw.keys() - UNDERSTOOD):
        if raw[name] not in (None, False, 0, "", "none", [], {}):
            raise UserError(key, f"the SAE's config asks for {name}={raw[name]!r}, which is not understood", OTHER)
    if raw["architecture"] not in TENSORS:
        raise UserError(key, f"SAE architecture '{raw['architecture']}' is not supported", f"use {', '.join(TENSORS)}")
    if raw.get("normalize_activations", "none") not in NORMALISATIONS:
        wrong = (
            f"normalize_activations={raw['normalize_activations']!r} is neither folded into the weights nor known here"
        )
        raise UserError(key, wrong, OTHER)
    # A model that TransformerLens centres writes vectors of mean zero into its residual stream; the heads' outputs stay.
    understood = HARMLESS if site == "attn_z" else HARMLESS | {"center_writing_weights"}
    for name, value in sorted((meta.get("model_from_pretrained_kwargs") or {}).items()):
        if value and name not in understood:
            wrong = f"the SAE was trained on a model processed with {name}={value!r}, which is not supported"
            raise UserError(key, wrong, OTHER)


@dataclass(frozen=True)
class Features:
    """Active features of some tokens: `counts` per token, and feature `indices` and `values` token after token.

    Within a token the indices ascend.
    """

    counts: Tensor
    indices: Tensor
    values: Tensor

    def of(self, tokens: Tensor) -> "Features":
        """The features of some tokens, given by their places in ascending order."""
        wanted = torch.zeros(len(self.counts), dtype=torch.bool, device=self.counts.device)
        wanted[tokens] = True
        entries = torch.repeat_interleave(wanted, self.counts)
        return Features(self.counts[tokens], self.indices[entries], self.values[entries])


# A block of the width: its activations before selection for some tokens -> flat places in the block, and their values.
Select = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


class Sae:
    """Encodes vectors into sparse features, in float32.

    `resident` is whether a card holds the encoder; where it does not, each use copies it chunk by chunk.
    """

    def __init__(self, folder: Path, key: str, device: str = "cpu", *, resident: bool = True):
        self.config = config = read_config(folder, key)
        self.device = torch.device(device)
        self._file = safe_open(folder / WEIGHTS, framework="pt")
        self._check_shapes(folder)
        small = TENSORS[config.architecture] - {"W_enc", "W_dec"}
        self.tensors = {name: self._tensor(name).to(self.device) for name in sorted(small)}
        self.W_enc = self._tensor("W_enc").to(self.device) if resident else None
        if config.architecture == "jumprelu":
            # A pre-activation is active above its threshold and, with a threshold below zero, above zero.
            self.tensors["floor"] = self.tensors["threshold"].clamp(min=0)
        if config.rescale_acts_by_decoder_norm:
            self.tensors["norms"] = self._tensor("W_dec").norm(dim=-1).to(self.device)
        # Where a block is computed. Room asked for anew each time lies between results that stay, and is never whole
        # enough again for the next block: memory would grow with the width.
        self._room = torch.empty(0, device=self.device)
        self._marks = torch.empty(0, dtype=torch.bool, device=self.device)

    @property
    def at_hand(self) -> bool:
        """Whether encoding a few tokens is cheap, because the encoder does not have to be copied for it."""
        return self.W_enc is not None

    def _tensor(self, name: str) -> Tensor:
        """A tensor as the file holds it: mapped into memory, not read, unless it is stored in another precision."""
        return self._file.get_tensor(name).to(torch.float32)

    def _check_shapes(self, folder: Path) -> None:
        config = self.config
        shapes = {"W_enc": (config.d_in, config.d_sae), "W_dec": (config.d_sae, config.d_in), "b_dec": (config.d_in,)}
        present = set(self._file.keys())
        for name in sorted(TENSORS[config.architecture]):
            if name not in present:
                raise UserError(str(folder / WEIGHTS), f"tensor {name} is missing", "fetch the SAE again")
            shape, expected = tuple(self._file.get_slice(name).get_shape()), shapes.get(name, (config.d_sae,))
            if shape != expected:
                wrong = f"tensor {name} has shape {shape} where the config says {expected}"
                raise UserError(str(folder / WEIGHTS), wrong, "fetch the SAE again")

    def check_finite(self, where: str) -> None:
        """A `UserError` about the first tensor that holds anything but numbers."""
        for name in sorted(TENSORS[self.config.architecture]):
            if not bool(torch.isfinite(self._tensor(name)).all()):
                raise UserError(where, f"tensor {name} holds values that are not finite", "fetch the SAE again")

    def prepared(self, x: Tensor) -> Tensor:
        """What the SAE calls its input, and what `decode` reconstructs: centred and normalised as its config says."""
        x = x.to(torch.float32)
        if self.config.centred:
            x = x - x.mean(dim=-1, keepdim=True)
        if self.config.normalize_activations == "layer_norm":
            x = x - x.mean(dim=-1, keepdim=True)
            return x / (x.std(dim=-1, keepdim=True) + 1e-5)
        if self.config.normalize_activations == "constant_norm_rescale":
            return x * (self.config.d_in**0.5 / x.norm(dim=-1, keepdim=True))
        return x

    def encode(self, x: Tensor, block: tuple[int, int] | None = None, counts: Tensor | None = None) -> Features:
        """Features of the rows of `x` [tokens, d_in]. `block` is how many tokens and features to look at together.

        `counts` are how many features a control is to have in each token.
        """
        x = self.prepared(x)
        if self.config.apply_b_dec_to_input:
            x = x - self.tensors["b_dec"]
        if self.config.architecture == "topk":
            most = torch.full((len(x),), int(self.config.k or 0), device=x.device)
            return self._top_k(x, block or self._block(CARD_WIDTH), most)
        if counts is not None:
            return self._top_k(x, block or self._block(CARD_WIDTH), counts)
        rows, columns, values = self._above(x, block or self._block(CPU_WIDTH))
        order = _stable_order(rows)
        return Features(torch.bincount(rows, minlength=len(x)), columns[order], values[order])

    def decode(self, features: Features) -> Tensor:
        """The reconstruction of what `prepared` gives, on the CPU: the decoder is read from its file where it lies."""
        counts, indices, values = (t.cpu() for t in (features.counts, features.indices, features.values))
        if self.config.rescale_acts_by_decoder_norm:
            values = values / self.tensors["norms"].cpu()[indices]
        starts = torch.cumsum(counts, 0) - counts
        summed = torch.nn.functional.embedding_bag(
            indices, self._tensor("W_dec"), starts, mode="sum", per_sample_weights=values
        )
        return summed + self.tensors["b_dec"].cpu()

    def _block(self, cpu_width: int) -> tuple[int, int]:
        if self.device.type == "cpu":
            return max(1, CPU_BLOCK // cpu_width), cpu_width
        return max(1, CARD_BLOCK // CARD_WIDTH), CARD_WIDTH

    def _encoder(self, part: slice) -> Tensor:
        """Some columns of the encoder, where they are to be used."""
        if self.W_enc is not None:
            return self.W_enc[:, part]
        return self._file.get_slice("W_enc")[:, part].to(self.device, torch.float32)

    def _projected(self, x: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
        """The rows times some columns of the encoder, in room that the next block takes over."""
        size = len(x) * weights.shape[1]
        if len(self._room) < size:
            self._room, self._marks = self._room.new_empty(size), self._marks.new_empty(size)
        room = self._room[:size].view(len(x), -1)
        return torch.mm(x, weights, out=room) if bias is None else torch.addmm(bias, x, weights, out=room)

    def _over(self, projected: Tensor, floor: Tensor | float) -> Tensor:
        """The flat places in a block of what is above the floor."""
        marks = self._marks[: projected.numel()].view_as(projected)
        return torch.gt(projected, floor, out=marks).view(-1).nonzero().squeeze(1)

    def _above(self, x: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and value of every active feature, ascending by row within each chunk of the width."""
        tokens, width = block
        select = self._select_gated if self.config.architecture == "gated" else self._select_above
        rows, columns, values = [], [], []
        for start in range(0, self.config.d_sae, width):
            part = slice(start, min(start + width, self.config.d_sae))
            weights = self._encoder(part)
            for first in range(0, len(x), tokens):
                found, value = select(x[first : first + tokens], weights, part)
                rows.append(torch.div(found, part.stop - start, rounding_mode="floor") + first)
                columns.append(found % (part.stop - start) + start)
                values.append(value)
        return torch.cat(rows), torch.cat(columns), torch.cat(values)

    def _select_above(self, x: Tensor, weights: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        projected = self._projected(x, weights, self.tensors["b_enc"][part])
        found = self._over(projected, self.tensors["floor"][part] if "floor" in self.tensors else 0.0)
        return found, projected.view(-1)[found]

    def _select_gated(self, x: Tensor, weights: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        # The magnitude's weights are the gate's, scaled by feature, so one product serves both.
        projected = self._projected(x, weights)
        found = self._over(projected, -self.tensors["b_gate"][part])
        column = found % weights.shape[1]
        scale, shift = self.tensors["r_mag"][part].exp(), self.tensors["b_mag"][part]
        value = projected.view(-1)[found] * scale[column] + shift[column]
        kept = value > 0
        return found[kept], value[kept]

    def _top_k(self, x: Tensor, block: tuple[int, int], most: Tensor) -> Features:
        """The largest of each row, `most` of them, of which the positive ones are active."""
        (tokens, width), k = block, int(most.max())
        best = [x.new_full((len(part), 0), 0.0) for part in x.split(tokens)]
        where = [part.long() for part in best]
        for start in range(0, self.config.d_sae, width):
            part = slice(start, min(start + width, self.config.d_sae))
            weights = self._encoder(part)
            for place, given in enumerate(x.split(tokens)):
                projected = self._projected(given, weights, self.tensors["b_enc"][part])
                if self.config.rescale_acts_by_decoder_norm:
                    projected *= self.tensors["norms"][part]
                values, columns = projected.topk(min(k, projected.shape[1]), dim=1)
                values, columns = torch.cat([best[place], values], 1), torch.cat([where[place], columns + start], 1)
                best[place], kept = values.topk(min(k, values.shape[1]), dim=1)
                where[place] = columns.gather(1, kept)
        values = torch.cat(best)
        values[torch.arange(values.shape[1], device=x.device) >= most[:, None]] = 0
        columns, order = torch.cat(where).sort(dim=1)
        values = values.gather(1, order)
        active = values > 0
        return Features(active.sum(dim=1), columns[active], values[active])


def _stable_order(rows: Tensor) -> Tensor:
    """The order that sorts `rows` and leaves equal ones as they are."""
    return torch.sort(rows, stable=True).indices
