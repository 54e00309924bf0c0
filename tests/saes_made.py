"""Random SAEs of every architecture, saved by sae-lens itself."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 7, "rescale_acts_by_decoder_norm": False}),
    "topk-rescaled": (TopKSAE, TopKSAEConfig, {"k": 7, "rescale_acts_by_decoder_norm": True}),
    "gated": (GatedSAE, GatedSAEConfig, {}),
}


def random_sae(
    folder: Path,
    kind: str,
    *,
    layer: int = 1,
    d_in: int = 32,
    d_sae: int = 96,
    hook: str = "hook_resid_post",
    **cfg: Any,
) -> SAE[Any]:
    sae_class, config_class, more = KINDS[kind]
    meta = SAEMetadata(model_name="tiny", hook_name=f"blocks.{layer}.{hook}", prepend_bos=True)
    sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, metadata=meta, **more, **cfg))
    torch.manual_seed(layer + d_sae)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            scale = 1.0 if name.startswith("W") else 0.3
            parameter.copy_(torch.randn(parameter.shape) * scale)
    sae.save_model(folder)
    return sae
