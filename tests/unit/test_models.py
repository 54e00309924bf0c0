"""Reading block outputs of every kind of model, against one text at a time through the plain model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedTokenizerFast

from tessera.errors import UserError
from tessera.models import LanguageModel, find_blocks

SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE = {"intermediate_size": 64, "max_position_embeddings": 64}
KV = {"num_key_value_heads": 2, "head_dim": 8}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

CONFIGS: dict[str, Any] = {
    "gemma2": (
        transformers.Gemma2Config,
        {**SMALL, **WIDE, **KV, **SPECIAL, "attn_logit_softcapping": 2.0, "initializer_range": 0.3},
    ),
    "gemma3": (transformers.Gemma3TextConfig, {**SMALL, **WIDE, **KV, **SPECIAL}),
    "llama": (transformers.LlamaConfig, {**SMALL, **WIDE, **SPECIAL}),
    "qwen2": (transformers.Qwen2Config, {**SMALL, **WIDE, **SPECIAL, "num_key_value_heads": 2}),
    "gpt2": (
        transformers.GPT2Config,
        {"vocab_size": 400, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, **SPECIAL},
    ),
    "gpt-neox": (transformers.GPTNeoXConfig, {**SMALL, **WIDE, **SPECIAL}),
    "bert": (transformers.BertConfig, {**SMALL, **WIDE, "pad_token_id": 0}),
}
TEXTS = ["one", "a somewhat longer text with more words in it", "", "two words"]


def make(kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> transformers.PreTrainedModel:
    config_class, values = CONFIGS[kind]
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config_class(**values), attn_implementation="eager").eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def opened(folder: Path, layers: list[int], **changes: Any) -> LanguageModel:
    given = {"dtype": "float32", "attention": "eager", "device": "cpu", "key": "models.m", **changes}
    return LanguageModel(folder, layers=layers, **given)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_reads_what_the_plain_model_gives_one_text_at_a_time(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = make(kind, tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, [0, 1])
    tokens = reader.tokenize(TEXTS, 50)
    found = reader.residuals(tokens)
    for row, one in enumerate(tokens):
        with torch.inference_mode():
            states = plain(input_ids=torch.tensor([one.ids]), output_hidden_states=True).hidden_states
        for layer in (0, 1):
            # hidden_states[n + 1] is what block n returns; only the last one is normalised first.
            torch.testing.assert_close(found[layer][row, : len(one.ids)], states[layer + 1][0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_blocks_beyond_the_deepest_layer_are_neither_kept_nor_run(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    make(kind, tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, [1])
    assert len(reader.blocks) == 2
    assert set(reader.residuals(reader.tokenize(["a text"], 50))) == {1}


def test_bos_is_put_first_once_and_is_no_content(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("gemma2", tmp_path, tiny_tokenizer)
    (tokens,) = opened(tmp_path, [0]).tokenize(["<bos>a text"], 50)
    assert tokens.ids.count(1) == 1
    assert tokens.ids[0] == 1
    assert tokens.content == [False] + [True] * (len(tokens.ids) - 1)


def test_an_empty_text_has_no_content(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("gemma2", tmp_path, tiny_tokenizer)
    (tokens,) = opened(tmp_path, [0]).tokenize([""], 50)
    assert tokens.ids == [1]
    assert not any(tokens.content)


def test_soft_capping_is_in_force(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    # The same weights read with a cap that bites and with one that does not must differ where attention does.
    make("gemma2", tmp_path, tiny_tokenizer)
    text = "a somewhat longer text with more words in it"
    capped = opened(tmp_path, [2])
    open_cap = opened(tmp_path, [2])
    for block in open_cap.blocks:
        block.self_attn.attn_logit_softcapping = None
    tokens = capped.tokenize([text], 50)
    assert (capped.residuals(tokens)[2] - open_cap.residuals(tokens)[2]).abs().max() > 1e-4


def test_attention_that_may_leave_the_cap_out_is_refused(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    make("gemma2", tmp_path, tiny_tokenizer)
    with pytest.raises(UserError, match=r"models\.m\.attention: gemma2 caps its attention scores.*set it to eager"):
        opened(tmp_path, [0], attention="sdpa")


def test_a_layer_beyond_the_model_is_one_line(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("llama", tmp_path, tiny_tokenizer)
    with pytest.raises(UserError, match=r"models\.m\.layers: layer 3 is beyond its 3 layers\. Mend: use 0 to 2\."):
        opened(tmp_path, [3])


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="no list of 3 blocks"):
        find_blocks(torch.nn.Linear(2, 2), 3)
