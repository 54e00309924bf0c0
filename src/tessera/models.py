"""A language model as a stack of blocks whose outputs can be read.

`blocks.N.hook_resid_post` is what block N returns. It is read by a hook on the block, because the `hidden_states` that a
model reports end with a normalised one. The block list is found by its shape (the one module list as long as the config
says the model is deep), not by a table of model names. The forward stops after the deepest block that is read: deeper
blocks are dropped when the model is opened, and neither logits nor a cache is ever computed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from tessera.errors import UserError

# Model types whose attention scores are soft-capped, which only the eager implementation does in every release.
SOFT_CAPPED = {"gemma2"}


class _DeepEnough(Exception):  # noqa: N818 - not an error
    """Raised by the hook on the deepest block to end the forward pass there."""


@dataclass(frozen=True)
class Tokens:
    """One text as the model reads it. `content` marks the positions that are not special tokens."""

    ids: list[int]
    content: list[bool]
    truncated: bool


class LanguageModel:
    """A model and its tokenizer, opened for reading the outputs of `layers`."""

    def __init__(self, folder: Path, *, layers: Iterable[int], dtype: str, attention: str, device: str, key: str):
        # A capture shows one bar, its own; the loader's bar over a model's tensors would say nothing beside it.
        transformers.utils.logging.disable_progress_bar()
        self.layers = tuple(sorted(set(layers)))
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.model_type in SOFT_CAPPED and attention != "eager":
            wrong = (
                f"{config.model_type} caps its attention scores, and '{attention}' may leave that out without a word"
            )
            raise UserError(f"{key}.attention", wrong, "set it to eager")
        model = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        if model.config._attn_implementation != attention:
            wrong = f"the model runs '{model.config._attn_implementation}' attention where '{attention}' was asked for"
            raise UserError(f"{key}.attention", wrong, "choose the one it runs")
        self.context = int(getattr(config, "max_position_embeddings", 0) or 0)
        blocks = find_blocks(model, config.num_hidden_layers)
        if self.layers[-1] >= len(blocks):
            wrong = f"layer {self.layers[-1]} is beyond its {len(blocks)} layers"
            raise UserError(f"{key}.layers", wrong, f"use 0 to {len(blocks) - 1}")
        del blocks[self.layers[-1] + 1 :]
        self.blocks = blocks
        self.model = model.eval().requires_grad_(False).to(device)
        pad = self.tokenizer.pad_token_id
        self.pad_id = pad if pad is not None else (self.tokenizer.eos_token_id or 0)
        self.special_ids = set(self.tokenizer.all_special_ids)

    def tokenize(self, texts: Sequence[str], max_length: int) -> list[Tokens]:
        """Each text's tokens as the model is meant to see them: BOS first where the tokenizer has one, cut at the end."""
        limit = min(max_length, self.context) if self.context else max_length
        bos = self.tokenizer.bos_token_id
        tokens = []
        # Texts longer than the limit are cut here and counted, so the tokenizer's own warning about them says nothing new.
        for given in self.tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]:
            ids = given if bos is None or given[:1] == [bos] else [bos, *given]
            kept = ids[:limit]
            tokens.append(Tokens(kept, [i not in self.special_ids for i in kept], len(ids) > limit))
        return tokens

    @torch.inference_mode()
    def residuals(self, batch: Sequence[Tokens]) -> dict[int, Tensor]:
        """Layer -> its output [texts, length, hidden] for a batch padded on the right."""
        length = max(len(tokens.ids) for tokens in batch)
        ids = torch.full((len(batch), length), self.pad_id, dtype=torch.long)
        mask = torch.zeros((len(batch), length), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens.ids)] = torch.tensor(tokens.ids)
            mask[row, : len(tokens.ids)] = 1
        found: dict[int, Tensor] = {}
        hooks = [self.blocks[layer].register_forward_hook(self._keep(layer, found)) for layer in self.layers]
        try:
            self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), **self._no_cache())
        except _DeepEnough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _no_cache(self) -> dict[str, bool]:
        return {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}

    def _keep(self, layer: int, found: dict[int, Tensor]) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # A block returns a tensor in some releases and a tuple that starts with it in others.
            found[layer] = output[0] if isinstance(output, tuple) else output
            if layer == self.layers[-1]:
                raise _DeepEnough

        return hook


def find_blocks(model: nn.Module, depth: int) -> nn.ModuleList:
    """The module list that is the stack of blocks: as long as the model is deep, and not inside another such list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if not lists:
        raise UserError(type(model).__name__, f"no list of {depth} blocks was found in it", "report this architecture")
    return lists[0]


def made_with() -> dict[str, str]:
    """Versions that the numbers of a pass depend on."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}
