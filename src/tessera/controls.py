"""A control for an SAE: features that are nothing but random directions.

As many features as the SAE has, reading at the same place, each a direction drawn at random with the length of the SAE's
own. Which are active is decided in the capture: in each token the largest ones above zero, as many as the SAE has there. What a
classifier makes of them is what any sparse code of that width and density is worth.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tessera.files import read_json, replacing, write_json
from tessera.saes import CONFIG, WEIGHTS

KEPT = ("d_in", "d_sae", "dtype", "normalize_activations", "reshape_activations")


def write(matched: Path, folder: Path, seed: int | None) -> None:
    """Write the control of the canonical SAE in `matched` as a canonical folder."""
    raw = read_json(matched / CONFIG)
    meta = raw["metadata"]
    places = {key: meta[key] for key in ("hook_name", "model_from_pretrained_kwargs") if meta.get(key)}
    config = {key: raw[key] for key in KEPT if key in raw}
    # Without what the SAE takes for the middle of its input, the same few directions would be the largest in every token.
    write_json(folder / CONFIG, {**config, "architecture": "random", "apply_b_dec_to_input": True, "metadata": places})
    with safe_open(matched / WEIGHTS, framework="pt") as file:
        encoder, middle = file.get_tensor("W_enc").float(), file.get_tensor("b_dec").float()
    chance = torch.Generator().manual_seed(seed or 0)
    directions = torch.randn(encoder.shape, generator=chance)
    directions /= directions.norm(dim=0)
    tensors = {
        "W_enc": directions * encoder.norm(dim=0),
        "W_dec": directions.T.contiguous(),
        "b_enc": torch.zeros(encoder.shape[1]),
        "b_dec": middle,
    }
    with replacing(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
