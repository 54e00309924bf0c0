"""Where in a block activations are read.

The names are those of TransformerLens, and so of most published SAEs:

- `resid_pre`, `resid_post`: what enters a block and what leaves it.
- `mlp_out`: what the MLP adds to the residual stream; where its output is normalised first (Gemma), after that.
- `attn_z`: the heads' outputs side by side, before the projection that mixes them. Gemma Scope's attention SAEs read it.

One site is in no block: `vision_tower`, the features that a vision-language model's tower hands to its projector.

Modules are found by what blocks of many families have in common, and a block without them is refused by name.
"""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tessera.errors import UserError

PROJECTION = re.compile(r"(self_attn|self_attention|attn|attention)(\.output)?\.(o_proj|out_proj|c_proj|dense)")
MLPS = ("post_feedforward_layernorm", "mlp", "feed_forward")

Keep = Callable[[Tensor], None]


def attach(block: nn.Module, site: str, keep: Keep, key: str) -> RemovableHandle:
    """Call `keep` with what is at `site` whenever the block runs. `key` is the config key that errors name."""
    if site == "resid_post":
        return block.register_forward_hook(lambda module, given, output: keep(_first(output)))
    if site == "resid_pre":
        return block.register_forward_pre_hook(
            lambda module, given, named: keep(given[0] if given else named["hidden_states"]), with_kwargs=True
        )
    if site == "mlp_out":
        return _mlp(block, key).register_forward_hook(lambda module, given, output: keep(_first(output)))
    return attach_before(_projection(block, key), keep)


def attach_before(module: nn.Module, keep: Keep) -> RemovableHandle:
    """Call `keep` with what a module is given whenever it runs."""
    return module.register_forward_pre_hook(lambda module, given: keep(given[0]))


def _first(output: Any) -> Tensor:
    """A block returns a tensor in some releases and a tuple that starts with it in others."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _mlp(block: nn.Module, key: str) -> nn.Module:
    found = next((getattr(block, name) for name in MLPS if hasattr(block, name)), None)
    if found is None:
        wrong = f"no MLP that adds to the residual stream was found in {type(block).__name__}"
        raise UserError(key, wrong, "read another site of this model")
    return found


def _projection(block: nn.Module, key: str) -> nn.Module:
    found = [module for name, module in block.named_modules() if PROJECTION.fullmatch(name)]
    if len(found) != 1:
        wrong = f"{len(found)} output projections of the attention were found in {type(block).__name__}"
        raise UserError(key, wrong, "read another site of this model")
    return found[0]
