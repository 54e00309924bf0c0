"""Sparse autoencoders for the demo's language models, trained with sae-lens's own classes and trainer.

The activations of a tiny model on a few thousand texts fit in memory: they are harvested once, and batches
are drawn from them. sae-lens scales them to a common norm while it trains, so that one set of
coefficients serves layers of any norm, and folds the scale into the weights at the end. What is saved needs no scaling
at run time; decoder rows have one length, and a feature's value is in the units of training, the same for every layer.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    SAETrainer,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.config import SAETrainerConfig

from tessera.demo.folders import filling
from tessera.demo.reproducible import reproducibly
from tessera.files import read_json, write_json
from tessera.job import progress
from tessera.models import LanguageModel, Tokens, content_mask

Architecture = Literal["standard", "topk", "batchtopk", "jumprelu"]

TOKENS = 40_000  # harvested, about
HELD_OUT = 0.1  # of the texts
BATCH = 256
RATE = 3e-3
ACTIVE = 12  # features a token that every architecture aims at
DEAD_AFTER = 100  # steps without firing, after which a feature is helped back

# What sparsity costs, so that about `ACTIVE` features fire. With activations scaled to norm sqrt(d_in), squared errors
# grow with d_in and sums of features with its root; the L1 cost makes up for it with another root.
L1_COEFFICIENT = 0.16
L0_COEFFICIENT = 0.2
BANDWIDTH = 0.1


def train(
    model_folder: Path | str,
    texts: Sequence[str],
    folder: Path | str,
    *,
    layer: int,
    width: int,
    architecture: Architecture,
    steps: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Train an SAE on the output of decoder layer `layer` and save it in sae-lens's form; return its record.

    What the record says is measured with the saved SAE: explained variance and L0 on texts held out from training, the
    dead fraction (features that never fire) on all of them.
    """
    with reproducibly(seed, threads), filling(folder) as (scratch, record):
        training, held_out = _harvest(Path(model_folder), texts, layer, seed)
        sae = _sae(architecture, training.shape[1], width, steps)
        sae.cfg.metadata.model_name = Path(model_folder).name
        sae.cfg.metadata.hook_name = f"blocks.{layer}.hook_resid_post"
        sae.cfg.metadata.prepend_bos = True
        _fit(sae, training, steps, seed)
        _, config = sae.save_inference_model(scratch)
        # sae-lens writes the keys in an order that changes from run to run.
        write_json(config, read_json(config))
        record.update(
            layer=layer,
            width=width,
            architecture=architecture,
            steps=steps,
            seed=seed,
            threads=threads,
            tokens=len(training),
            heldout_tokens=len(held_out),
            **_health(SAE.load_from_disk(scratch), training, held_out),
        )
    return record


# --- activations ---------------------------------------------------------------------------------------------------


def _harvest(model_folder: Path, texts: Sequence[str], layer: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations of content tokens, a row each: about `TOKENS` of texts drawn by seed, and those of held-out texts."""
    model = LanguageModel(
        model_folder,
        places=[(layer, "resid_post")],
        dtype="float32",
        attention="eager",
        device="cpu",
        key=str(model_folder),
    )
    order = np.random.default_rng(seed).permutation(len(texts))
    tokens = model.tokenize([texts[i] for i in order], model.context)
    enough = 1 + int(np.searchsorted(np.cumsum([len(text) for text in tokens]), TOKENS))
    tokens = tokens[:enough]
    held_out = max(1, round(HELD_OUT * len(tokens)))
    return _activations(model, tokens[held_out:]), _activations(model, tokens[:held_out])


def _activations(model: LanguageModel, tokens: Sequence[Tokens]) -> torch.Tensor:
    rows = []
    ordered = sorted(tokens, key=len)
    for start in progress(range(0, len(ordered), 32), "reading activations", unit="batch"):
        batch = ordered[start : start + 32]
        (states,) = model.read(batch).values()
        rows.append(states[torch.from_numpy(content_mask(batch))])
    return torch.cat(rows)


# --- training ------------------------------------------------------------------------------------------------------


def _sae(architecture: Architecture, d_in: int, width: int, steps: int) -> TrainingSAE:
    shape: dict[str, Any] = {"d_in": d_in, "d_sae": width, "normalize_activations": "expected_average_only_in"}
    active = min(ACTIVE, width)
    warm_up = steps // 5
    match architecture:
        case "standard":
            return StandardTrainingSAE(
                StandardTrainingSAEConfig(**shape, l1_coefficient=L1_COEFFICIENT * d_in**0.5, l1_warm_up_steps=warm_up)
            )
        case "topk":
            return TopKTrainingSAE(TopKTrainingSAEConfig(**shape, k=active))
        case "batchtopk":
            return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shape, k=active))
        case "jumprelu":
            return JumpReLUTrainingSAE(
                JumpReLUTrainingSAEConfig(
                    **shape,
                    jumprelu_sparsity_loss_mode="quadratic",
                    target_l0=active,
                    l0_coefficient=L0_COEFFICIENT,
                    l0_warm_up_steps=warm_up,
                    jumprelu_bandwidth=BANDWIDTH,
                    jumprelu_init_threshold=BANDWIDTH,
                )
            )


def _fit(sae: TrainingSAE, activations: torch.Tensor, steps: int, seed: int) -> None:
    """Train in place; afterwards scale and decoder norms are folded into the weights."""
    cfg = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=RATE,
        lr_end=RATE / 10,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 5,
        dead_feature_window=DEAD_AFTER,
        # A window that is never full: the trainer would otherwise make a wandb histogram of it.
        feature_sampling_window=steps + 1,
        n_batches_for_norm_estimate=20,
    )
    SAETrainer(cfg, sae, _batches(activations, np.random.default_rng(seed))).fit()
    # The trainer's L0 and dead features average over all of training, its beginning included; the record has better ones.
    del sae.cfg.metadata.l0, sae.cfg.metadata.num_dead_features
    sae.fold_W_dec_norm()
    if isinstance(sae, TopKTrainingSAE):
        sae.cfg.rescale_acts_by_decoder_norm = False
    _to_common_units(sae, float(activations.norm(dim=1).mean()))


@torch.no_grad()
def _to_common_units(sae: TrainingSAE, norm: float) -> None:
    """Let a feature's value be what it was in training, where activations have norm sqrt(d_in), whatever the layer."""
    unit = norm / sae.cfg.d_in**0.5
    sae.W_dec.mul_(unit)
    for name in ("W_enc", "b_enc", "threshold", "topk_threshold"):
        if hasattr(sae, name):
            getattr(sae, name).div_(unit)


def _batches(activations: torch.Tensor, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Endless batches of rows, drawn without replacement within each pass."""
    size = min(BATCH, len(activations))
    while True:
        order = torch.from_numpy(rng.permutation(len(activations)))
        for start in range(0, len(order) - size + 1, size):
            yield activations[order[start : start + size]]


# --- measuring -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _health(sae: SAE, training: torch.Tensor, held_out: torch.Tensor) -> dict[str, float]:
    missed, active = 0.0, 0
    for batch in held_out.split(4096):
        features = sae.encode(batch)
        missed += float((sae.decode(features) - batch).double().square().sum())
        active += int((features > 0).sum())
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for batch in torch.cat([training, held_out]).split(4096):
        fired |= (sae.encode(batch) > 0).any(dim=0)
    variance = float((held_out - held_out.mean(dim=0)).double().square().sum())
    return {
        "explained_variance": 1 - missed / variance,
        "l0": active / len(held_out),
        "dead_fraction": 1 - float(fired.double().mean()),
    }
