"""A tiny vision-language model of PaliGemma's architecture, whose language tower is one of the demo's language models.

Only a SigLIP tower of two blocks and a linear projector are trained, by next-token prediction of a caption that names
the digit in a picture. The language model stays what it is, to the last bit, so its SAEs and its reading of texts hold for
both. The image token comes after its vocabulary and has no vector: the model replaces it before it looks any up.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    Gemma2ForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tessera.demo.digits import NAMES, PIXELS
from tessera.demo.folders import filling
from tessera.demo.reproducible import reproducibly
from tessera.job import progress

PATCH = 8  # so a picture takes four tokens
TOWER_SIZE, TOWER_BLOCKS, TOWER_HEADS = 64, 2, 4
BATCH = 24
HELD_OUT = 10  # one picture in so many
PEAK_RATE = 1.5e-2
WARM_UP = 0.1


def train(
    language_model_folder: Path | str,
    rows: Sequence[dict[str, Any]],
    folder: Path | str,
    *,
    steps: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Train on rows of {image, label} and save model and processor as a Hugging Face folder; return its record.

    The same arguments give the same weights, on the same machine. `heldout_loss` is in nats per token of a caption;
    `digits_named` is the share of held-out pictures whose own caption is the likeliest of all ten.
    """
    with reproducibly(seed, threads), filling(folder) as (scratch, record):
        tokenizer = AutoTokenizer.from_pretrained(language_model_folder)
        language_model = Gemma2ForCausalLM.from_pretrained(language_model_folder, attn_implementation="eager")
        captions = _captions(tokenizer)
        processor = _processor(tokenizer)
        model = _model(language_model, processor.image_token_id)
        pictures = _pictures(rows, processor)
        prompt = processor(images=[Image.new("RGB", (PIXELS, PIXELS))], text=[processor.image_token])["input_ids"][0]
        order = np.random.default_rng(seed).permutation(len(rows))
        held_out, training = order[: len(rows) // HELD_OUT], order[len(rows) // HELD_OUT :]
        captioner = Captioner(model, prompt, captions)
        losses = _fit(captioner, pictures.of(training), steps, seed)
        _check_frozen(model, language_model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        record.update(
            steps=steps,
            seed=seed,
            threads=threads,
            pictures=len(training),
            heldout_pictures=len(held_out),
            image_tokens=processor.image_seq_length,
            parameters_trained=sum(parameter.numel() for parameter in trained),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            train_loss=float(np.mean(losses[-max(1, steps // 10) :])),
            **_measured(captioner, pictures.of(held_out)),
        )
        model.save_pretrained(scratch)
        processor.save_pretrained(scratch)
    return record


# --- data ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """Pixels [pictures, channels, height, width] and which digit each shows."""

    pixels: Tensor
    digits: np.ndarray

    def of(self, places: np.ndarray) -> "Pictures":
        return Pictures(self.pixels[torch.from_numpy(places)], self.digits[places])

    def __len__(self) -> int:
        return len(self.digits)


def _pictures(rows: Sequence[dict[str, Any]], processor: PaliGemmaProcessor) -> Pictures:
    images = [Image.open(io.BytesIO(row["image"])) for row in rows]
    pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    return Pictures(pixels, np.array([NAMES.index(row["label"]) for row in rows]))


def _captions(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of each digit's name, and the end."""
    named = tokenizer(list(NAMES), add_special_tokens=False)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in named]


def _batches(pictures: Pictures, rng: np.random.Generator) -> Iterator[Pictures]:
    """Endless batches; each pass draws a new order and leaves out what fills no batch."""
    size = min(BATCH, len(pictures))
    while True:
        order = rng.permutation(len(pictures))
        for start in range(0, len(pictures) - size + 1, size):
            yield pictures.of(order[start : start + size])


# --- model ---------------------------------------------------------------------------------------------------------


def _processor(tokenizer: PreTrainedTokenizerBase) -> PaliGemmaProcessor:
    images = SiglipImageProcessorPil(size={"height": PIXELS, "width": PIXELS})
    images.image_seq_length = (PIXELS // PATCH) ** 2
    return PaliGemmaProcessor(images, tokenizer)


def _model(language_model: Gemma2ForCausalLM, image_token_id: int) -> PaliGemmaForConditionalGeneration:
    """The language model with an untrained tower beside it."""
    text = type(language_model.config)(**language_model.config.to_dict())
    text._name_or_path = ""  # a folder of this machine
    size = text.hidden_size
    tower = SiglipVisionConfig(
        hidden_size=TOWER_SIZE,
        intermediate_size=2 * TOWER_SIZE,
        num_hidden_layers=TOWER_BLOCKS,
        num_attention_heads=TOWER_HEADS,
        image_size=PIXELS,
        patch_size=PATCH,
        vision_use_head=False,
    )
    config = PaliGemmaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=image_token_id,
        vocab_size=text.vocab_size,
        projection_dim=size,
        hidden_size=size,
    )
    config._attn_implementation = "eager"
    model = PaliGemmaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.model.language_model.requires_grad_(False)
    # As large as the vectors of words are, within a factor of two; far smaller ones would hardly be heard.
    projector = model.model.multi_modal_projector.linear
    nn.init.normal_(projector.weight, std=TOWER_SIZE**-0.5)
    nn.init.zeros_(projector.bias)
    return model


class Captioner:
    """What captions cost under a model, after its prompt of one picture."""

    def __init__(self, model: PaliGemmaForConditionalGeneration, prompt: list[int], captions: list[list[int]]):
        self.model, self.prompt, self.captions = model, prompt, captions

    def losses(self, pixels: Tensor, digits: np.ndarray) -> Tensor:
        """The loss of each token of the digits' captions, one picture's after another's."""
        ids, types, targets = self._inputs(digits)
        states = self.model.model(
            input_ids=ids,
            pixel_values=pixels,
            token_type_ids=types,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
        ).last_hidden_state
        kept = targets >= 0
        cap = self.model.config.text_config.final_logit_softcapping
        logits = torch.tanh(self.model.lm_head(states[kept]) / cap) * cap
        return cross_entropy(logits, targets[kept], reduction="none")

    def _inputs(self, digits: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, which of them are caption (1), and next tokens (-100 outside the caption).

        Padding comes last, where the caption, read from left to right, never looks.
        """
        start = len(self.prompt)
        ids = torch.zeros(len(digits), start + max(map(len, self.captions)), dtype=torch.long)
        targets = torch.full_like(ids, -100)
        ids[:, :start] = torch.tensor(self.prompt)
        for row, digit in enumerate(digits):
            caption = self.captions[digit]
            ids[row, start : start + len(caption)] = torch.tensor(caption)
            targets[row, start - 1 : start - 1 + len(caption)] = torch.tensor(caption)
        types = torch.ones_like(ids)
        types[:, :start] = 0
        return ids[:, :-1], types[:, :-1], targets[:, :-1]


def _fit(captioner: Captioner, pictures: Pictures, steps: int, seed: int) -> list[float]:
    """Train in place; the loss of every step."""
    trained = [parameter for parameter in captioner.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=max(2, steps), pct_start=WARM_UP, cycle_momentum=False
    )
    losses = []
    captioner.model.train()
    batches = islice(_batches(pictures, np.random.default_rng(seed)), steps)
    for batch in progress(batches, "training the vision tower", total=steps, unit="step"):
        loss = captioner.losses(batch.pixels, batch.digits).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    captioner.model.eval()
    return losses


@torch.inference_mode()
def _measured(captioner: Captioner, pictures: Pictures) -> dict[str, float]:
    costs = []
    for digit, caption in enumerate(captioner.captions):
        losses = captioner.losses(pictures.pixels, np.full(len(pictures), digit))
        costs.append(losses.reshape(len(pictures), len(caption)).sum(dim=1).numpy())
    table = np.stack(costs, axis=1)
    own = table[np.arange(len(pictures)), pictures.digits]
    tokens = sum(len(captioner.captions[digit]) for digit in pictures.digits)
    return {
        "heldout_loss": float(own.sum() / tokens),
        "digits_named": float((table.argmin(axis=1) == pictures.digits).mean()),
    }


def _check_frozen(model: PaliGemmaForConditionalGeneration, language_model: Gemma2ForCausalLM) -> None:
    before, after = language_model.model.state_dict(), model.model.language_model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    if changed:
        raise AssertionError(f"training changed the language model: {changed[0]}")
