"""Tiny models with random weights, and tokenizers that fit them, saved as the Hub keeps them."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# As many blocks in both towers, so that only their place tells them apart.
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
LANGUAGE = {**SHAPE, "vocab_size": 410, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
TOWER = {**SHAPE, "hidden_size": 24, "image_size": 16, "patch_size": 4}


def trained_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level, without a BOS of its own, as a locally trained tokenizer is."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def gemma(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **shape: Any) -> None:
    """A Gemma 2 whose soft caps bite."""
    torch.manual_seed(seed)
    Gemma2ForCausalLM(Gemma2Config(**SPECIAL, attn_logit_softcapping=2.0, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copied(tokenizer: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of its own, because processors add tokens to the one they are given."""
    tokenizer.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def paligemma(
    folder: Path, tokenizer: PreTrainedTokenizerFast, language: dict[str, Any] | None = None, **changes: Any
) -> Any:
    """`language` is what of the language tower's shape is to be another, `changes` are further keys of the whole's config."""
    shape = {**LANGUAGE, **(language or {})}
    own = copied(tokenizer, folder)
    pixels = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    pixels.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(pixels, own)
    text = transformers.Gemma2Config(
        **shape, **SPECIAL, attn_logit_softcapping=2.0, initializer_range=0.3, query_pre_attn_scalar=8
    )
    tower = transformers.SiglipVisionConfig(**TOWER, vision_use_head=False)
    config = transformers.PaliGemmaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=shape["hidden_size"],
        hidden_size=shape["hidden_size"],
        **changes,
    )
    return saved(transformers.PaliGemmaForConditionalGeneration, config, processor, folder)


def saved(kind: Any, config: Any, processor: Any, folder: Path) -> Any:
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        # As given, the towers' weights are too small for what they say of an image to differ between images.
        for name, parameter in sorted(model.named_parameters()):
            if "language_model" not in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def png(image: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **how)
    return buffer.getvalue()
