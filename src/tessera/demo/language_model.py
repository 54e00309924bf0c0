"""Tiny language models of Gemma 2's architecture, trained here from scratch by next-token prediction.

Everything that makes Gemma 2 awkward is kept: alternating sliding-window layers, grouped key-value heads, norms before
and after each block, soft-capped attention and logits, scaled and tied embeddings. So whatever reads the demo's models
reads the real ones. Attention is `eager`, the only implementation that applies the soft cap.

A training sequence is one text between its beginning and end tokens, just as the model is read later; texts of about
the same length share a batch, which therefore holds hardly any padding. On a CPU most of the time goes into memory
traffic over the logits, and only positions with a target have any.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerBase

from tessera.demo.folders import filling
from tessera.demo.reproducible import reproducibly
from tessera.job import progress

POSITIONS = 512  # longest text the models accept
LONGEST = 128  # longest training sequence; what is beyond is cut
BATCH_TOKENS = 1024
HELD_OUT = 400  # texts, at most a tenth
PEAK_RATE = 1e-2
TUNING_RATE = 3e-3  # a model that is trained already unlearns what it knows at a higher one
WARM_UP = 0.1
FINAL_RATE = 0.05  # share of the peak
HEAD_DIM = 32

Sequences = list[list[int]]


def train(
    texts: Sequence[str],
    tokenizer_folder: Path | str,
    folder: Path | str,
    *,
    hidden_size: int,
    layers: int,
    steps: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Train a model on the texts and save it with its tokenizer as a Hugging Face folder; return its record.

    The same arguments give the same weights, on the same machine. Losses are nats per token; `unigram_entropy` is the
    loss on the held-out texts of the best guess that ignores context, which tells whether anything was learned.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    training, held_out = _split(_sequences(texts, tokenizer), seed)
    with reproducibly(seed, threads), filling(folder) as (scratch, record):
        model = _model(tokenizer, hidden_size, layers)
        losses, tokens = _fit(model, training, steps, seed, PEAK_RATE)
        record.update(
            hidden_size=hidden_size,
            layers=layers,
            steps=steps,
            seed=seed,
            threads=threads,
            vocabulary=len(tokenizer),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            tokens=tokens,
            train_loss=float(np.mean(losses[-max(1, steps // 10) :])),
            heldout_loss=_loss(model, held_out),
            heldout_tokens=sum(len(sequence) - 1 for sequence in held_out),
            unigram_entropy=_unigram_entropy(training, held_out, len(tokenizer)),
        )
        _save(model, tokenizer_folder, scratch)
    return record


def tune(
    model_folder: Path | str,
    texts: Sequence[str],
    folder: Path | str,
    *,
    steps: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Train a model of `train` further on other texts and save it likewise; return its record.

    `heldout_loss_before` is what the model it comes from makes of the held-out texts.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    training, held_out = _split(_sequences(texts, tokenizer), seed)
    with reproducibly(seed, threads), filling(folder) as (scratch, record):
        # The loader's bar over a model's tensors would say nothing beside the one of training.
        transformers.utils.logging.disable_progress_bar()
        model = Gemma2ForCausalLM.from_pretrained(model_folder, attn_implementation="eager", dtype=torch.float32)
        before = _loss(model, held_out)
        losses, tokens = _fit(model, training, steps, seed, TUNING_RATE)
        record.update(
            steps=steps,
            seed=seed,
            threads=threads,
            tokens=tokens,
            train_loss=float(np.mean(losses[-max(1, steps // 10) :])),
            heldout_loss=_loss(model, held_out),
            heldout_loss_before=before,
            heldout_tokens=sum(len(sequence) - 1 for sequence in held_out),
        )
        _save(model, model_folder, scratch)
    return record


def _save(model: Gemma2ForCausalLM, tokenizer_folder: Path | str, folder: Path) -> None:
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(tokenizer_folder, name), folder / name)


# --- data ----------------------------------------------------------------------------------------------------------


def _sequences(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Sequences:
    encoded = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
    return [[*ids, tokenizer.eos_token_id][:LONGEST] for ids in encoded]


def _split(sequences: Sequences, seed: int) -> tuple[Sequences, Sequences]:
    order = np.random.default_rng(seed).permutation(len(sequences))
    held_out = max(1, min(HELD_OUT, len(sequences) // 10))
    return [sequences[i] for i in order[held_out:]], [sequences[i] for i in order[:held_out]]


def _batches(sequences: Sequences, rng: np.random.Generator) -> Iterator[Sequences]:
    """Endless batches of about equal length, in random order; each pass groups the sequences anew."""
    while True:
        order = rng.permutation(len(sequences))
        by_length = sorted(order, key=lambda i: len(sequences[i]))
        batches: list[Sequences] = [[]]
        for i in by_length:
            # Sorted upwards, so the newest is the longest and sets the padded width.
            if batches[-1] and (len(batches[-1]) + 1) * len(sequences[i]) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(sequences[i])
        for i in rng.permutation(len(batches)):
            yield batches[i]


def _padded(batch: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and next tokens (-100 where there is none). Padding comes last, where causal attention never looks."""
    width = max(map(len, batch)) - 1
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    targets = torch.full_like(ids, -100)
    for row, sequence in enumerate(batch):
        length = len(sequence) - 1
        ids[row, :length] = torch.tensor(sequence[:-1])
        targets[row, :length] = torch.tensor(sequence[1:])
    return ids, targets


# --- model ---------------------------------------------------------------------------------------------------------


def _model(tokenizer: PreTrainedTokenizerBase, hidden_size: int, layers: int) -> Gemma2ForCausalLM:
    heads = max(heads for heads in (1, 2, 4, 8) if heads * HEAD_DIM <= max(hidden_size, HEAD_DIM))
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=HEAD_DIM,
        query_pre_attn_scalar=HEAD_DIM,
        initializer_range=hidden_size**-0.5,
        max_position_embeddings=POSITIONS,
        sliding_window=POSITIONS // 8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


def _loss_of(model: Gemma2ForCausalLM, batch: Sequences) -> torch.Tensor:
    """Mean loss over the batch's targets; the head runs on positions that have one."""
    ids, targets = _padded(batch)
    kept = targets.flatten() >= 0
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)[kept]
    cap = model.config.final_logit_softcapping
    logits = torch.tanh(model.lm_head(states) / cap) * cap
    return cross_entropy(logits, targets.flatten()[kept])


def _fit(model: Gemma2ForCausalLM, sequences: Sequences, steps: int, seed: int, peak: float) -> tuple[list[float], int]:
    """Train in place; the loss of every step, and the number of tokens predicted."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    losses, tokens = [], 0
    batches = islice(_batches(sequences, np.random.default_rng(seed)), steps)
    model.train()
    for batch in progress(batches, "training the language model", total=steps, unit="step"):
        loss = _loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        tokens += sum(len(sequence) - 1 for sequence in batch)
    return losses, tokens


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then half a cosine."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2


@torch.inference_mode()
def _loss(model: Gemma2ForCausalLM, sequences: Sequences) -> float:
    model.eval()
    ordered = sorted(sequences, key=len)
    total = sum(
        _loss_of(model, batch).item() * sum(len(sequence) - 1 for sequence in batch)
        for batch in (ordered[start : start + 16] for start in range(0, len(ordered), 16))
    )
    return total / sum(len(sequence) - 1 for sequence in sequences)


def _unigram_entropy(training: Sequences, held_out: Sequences, vocabulary: int) -> float:
    """Loss on the held-out tokens of their frequencies in training, each token counted once more so that none is 0."""

    def counts(sequences: Sequences) -> np.ndarray:
        return np.bincount(
            np.concatenate([np.asarray(sequence[1:]) for sequence in sequences]), minlength=vocabulary
        ).astype(np.float64)

    frequencies = counts(training) + 1
    seen = counts(held_out)
    return float(-(seen * np.log(frequencies / frequencies.sum())).sum() / seen.sum())
