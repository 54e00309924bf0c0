"""Reading block outputs of every kind of model, against one text at a time through the plain model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
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


def opened(folder: Path, layers: list[int], sites: tuple[str, ...] = ("resid_post",), **changes: Any) -> LanguageModel:
    given = {"dtype": "float32", "attention": "eager", "device": "cpu", "key": "models.m", **changes}
    return LanguageModel(folder, places=[(layer, site) for layer in layers for site in sites], **given)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_reads_what_the_plain_model_gives_one_text_at_a_time(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = make(kind, tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, [0, 1])
    tokens = reader.tokenize(TEXTS, 50)
    found = reader.read(tokens)
    for row, one in enumerate(tokens):
        with torch.inference_mode():
            states = plain(input_ids=torch.tensor(one.ids[None]), output_hidden_states=True).hidden_states
        for layer in (0, 1):
            # hidden_states[n + 1] is what block n returns; only the last one is normalised first.
            ours = found[layer, "resid_post"][row, : len(one)]
            torch.testing.assert_close(ours, states[layer + 1][0], atol=1e-5, rtol=1e-4)


PROJECTIONS = {
    **dict.fromkeys(("gemma2", "gemma3", "llama", "qwen2"), "layers.{}.self_attn.o_proj"),
    "gpt2": "h.{}.attn.c_proj",
    "gpt-neox": "layers.{}.attention.dense",
    "bert": "encoder.layer.{}.attention.output.dense",
}
MLPS = {
    **dict.fromkeys(("gemma2", "gemma3"), "layers.{}.post_feedforward_layernorm"),
    **dict.fromkeys(("llama", "qwen2", "gpt-neox"), "layers.{}.mlp"),
    "gpt2": "h.{}.mlp",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_site_gives_what_the_plain_model_has_there(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = make(kind, tmp_path, tiny_tokenizer)
    sites = ("resid_pre", "attn_z", *(("mlp_out",) if kind in MLPS else ()))
    reader = opened(tmp_path, [0, 2], sites)
    assert len(reader.blocks) == 3
    tokens = reader.tokenize(TEXTS, 50)
    found = reader.read(tokens)
    caught: dict[Any, torch.Tensor] = {}
    for layer in (0, 2):
        projection = plain.get_submodule(PROJECTIONS[kind].format(layer))
        projection.register_forward_hook(
            lambda _, given, output, at=layer: caught.update({(at, "attn_z"): given[0][0]})
        )
        if kind in MLPS:
            mlp = plain.get_submodule(MLPS[kind].format(layer))
            mlp.register_forward_hook(lambda _, given, output, at=layer: caught.update({(at, "mlp_out"): output[0]}))
    for row, one in enumerate(tokens):
        with torch.inference_mode():
            states = plain(input_ids=torch.tensor(one.ids[None]), output_hidden_states=True).hidden_states
        expected = {**caught, **{(layer, "resid_pre"): states[layer][0] for layer in (0, 2)}}
        assert found.keys() == expected.keys()
        for place, theirs in expected.items():
            torch.testing.assert_close(found[place][row, : len(one)], theirs, atol=1e-5, rtol=1e-4)


def test_a_pass_stops_before_the_block_of_which_only_the_input_is_read(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    make("llama", tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, [2], ("resid_pre",))
    reader.blocks[2].self_attn.register_forward_pre_hook(lambda module, given: pytest.fail("block 2 ran"))
    assert set(reader.read(reader.tokenize(["a text"], 50))) == {(2, "resid_pre")}


def test_a_site_that_a_block_lacks_is_one_line(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("bert", tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, [0], ("mlp_out",))
    with pytest.raises(UserError, match=r"models\.m: no MLP .* was found in BertLayer"):
        reader.read(reader.tokenize(["a text"], 50))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_sides_on_which_a_tokenizer_pads_and_cuts_leave_no_trace(
    tmp_path: Path, side: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    plain = make("gemma2", tmp_path, tiny_tokenizer)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"padding_side": side, "truncation_side": side}))
    reader = opened(tmp_path, [1])
    assert reader.tokenizer.padding_side == side
    tokens = reader.tokenize(["one two three four five six seven", "x"], 8)
    assert [len(one) for one in tokens] == [8, 2]
    assert "one two three".startswith(reader.tokenizer.decode(tokens[0].ids[1:]))
    found = reader.read(tokens)[1, "resid_post"]
    for row, one in enumerate(tokens):
        with torch.inference_mode():
            states = plain(input_ids=torch.tensor(one.ids[None]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(found[row, : len(one)], states[2][0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_blocks_beyond_the_deepest_layer_are_neither_kept_nor_run(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    make(kind, tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, [1])
    assert len(reader.blocks) == 2
    assert set(reader.read(reader.tokenize(["a text"], 50))) == {(1, "resid_post")}


def test_bos_is_put_first_once_and_is_no_content(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("gemma2", tmp_path, tiny_tokenizer)
    (tokens,) = opened(tmp_path, [0]).tokenize(["<bos>a text"], 50)
    assert np.flatnonzero(tokens.ids == 1).tolist() == [0]
    assert tokens.content.tolist() == [False] + [True] * (len(tokens) - 1)


def test_an_empty_text_has_no_content(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("gemma2", tmp_path, tiny_tokenizer)
    (tokens,) = opened(tmp_path, [0]).tokenize([""], 50)
    assert tokens.ids.tolist() == [1]
    assert not tokens.content.any()


def test_soft_capping_is_in_force(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    # The same weights read with a cap that bites and with one that does not must differ where attention does.
    make("gemma2", tmp_path, tiny_tokenizer)
    text = "a somewhat longer text with more words in it"
    capped = opened(tmp_path, [2])
    open_cap = opened(tmp_path, [2])
    for block in open_cap.blocks:
        block.self_attn.attn_logit_softcapping = None
    tokens = capped.tokenize([text], 50)
    place = (2, "resid_post")
    assert (capped.read(tokens)[place] - open_cap.read(tokens)[place]).abs().max() > 1e-4


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


# --- chat templates ------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<<{{ message['role'] }}>>\n{{ message['content'] | trim }}<eos>\n"
    "{% endfor %}{% if add_generation_prompt %}<<model>>\n{% endif %}"
)


def chatting(folder: Path, tokenizer: PreTrainedTokenizerFast, template: str | None = TEMPLATE) -> LanguageModel:
    make("gemma2", folder, tokenizer)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return opened(folder, [1], chat=True)


def test_a_chat_template_frames_a_text_as_transformers_does(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    reader = chatting(tmp_path, tiny_tokenizer)
    # "user" and "model" stand in the template, too, and are content only where the user says them.
    for text in ("a text", "user", "  the model and the user  "):
        (tokens,) = reader.tokenize([text], 60)
        theirs = reader.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        assert tokens.ids.tolist() == theirs
        assert reader.tokenizer.decode(tokens.ids[tokens.content]) == text.strip()
        assert not tokens.truncated


def test_a_long_text_is_cut_inside_its_template(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    reader = chatting(tmp_path, tiny_tokenizer)
    short, long = reader.tokenize(["a", "a lot of words " * 20], 50)
    frame = len(short) - int(short.content.sum())
    assert (len(long), int(long.content.sum()), long.truncated) == (50, 50 - frame, True)
    assert ("a lot of words " * 20).startswith(reader.tokenizer.decode(long.ids[long.content]))
    assert long.ids[~long.content].tolist() == short.ids[~short.content].tolist()


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        (None, "has no chat template"),
        ("{{ messages[0]['content'] | upper }}", "leaves out what the user says"),
        ("{{ messages[0]['content'] | replace('x', 'y') }}", "changes what the user says"),
    ],
)
def test_a_template_that_does_not_keep_the_text_is_one_line(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, template: str | None, wrong: str
) -> None:
    with pytest.raises(UserError, match=rf"models\.m\.chat: .*{wrong}"):
        chatting(tmp_path, tiny_tokenizer, template).tokenize(["x and more"], 50)


def test_a_template_longer_than_the_limit_is_one_line(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"models\.m\.max_length: the chat template alone takes \d+ of 10 tokens"):
        chatting(tmp_path, tiny_tokenizer).tokenize(["a text that is long enough"], 10)
