"""What models say, against one text at a time through the plain model."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tessera.continuations import Candidate, Speaker
from tessera.errors import UserError

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CONFIGS: dict[str, Any] = {
    # Soft caps that bite, and sliding windows shorter than the texts.
    "gemma2": transformers.Gemma2Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        sliding_window=8,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        initializer_range=0.5,
        **SPECIAL,
    ),
    "gpt2": transformers.GPT2Config(
        vocab_size=400,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=64,
        initializer_range=0.5,
        tie_word_embeddings=False,
        **SPECIAL,
    ),
}
PROMPTS = [
    "one",
    "the quick brown fox jumps over the lazy dog and then it",
    "numbers 1 2 3 and punctuation;",
    "a short",
]
OPTIONS = [["two", "sleeps for a long while"], ["sun", "no!"], ["too", "again and again", "one"], ["text", "1"]]


def make(kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = type(CONFIGS[kind]).from_dict({**CONFIGS[kind].to_dict(), **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def opened(folder: Path, **changes: Any) -> Speaker:
    given = {"dtype": "float32", "attention": "eager", "max_length": 64, "device": "cpu", "key": "models.m"}
    return Speaker(folder, **{**given, "budget": 64, **changes})


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def candidates(speaker: Speaker) -> list[list[Candidate]]:
    return [
        speaker.candidates([prompt] * len(options), " ", options)
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True)
    ]


def names(things: Sequence[Any]) -> list[str]:
    return [f"q{number}" for number in range(len(things))]


@torch.inference_mode()
def one_by_one(folder: Path, prompt: str, option: str) -> float:
    """The log-likelihood in the plainest way: the whole text's logits, and the tokens behind those of the prompt."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), plain(folder)
    before = [1, *tokenizer(prompt)["input_ids"]]
    whole = [1, *tokenizer(f"{prompt} {option}")["input_ids"]]
    assert whole[: len(before)] == before
    likely = model(input_ids=torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(float(likely[place - 1, whole[place]]) for place in range(len(before), len(whole)))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_gives_the_likelihoods_of_one_text_at_a_time(
    tmp_path: Path, kind: str, side: Any, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = opened(make(kind, tmp_path, tiny_tokenizer), budget=1000)
    found = speaker.log_likelihoods(candidates(speaker), names(PROMPTS), side)
    expected = [
        [one_by_one(tmp_path, prompt, option) for option in options]
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True)
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert max(map(max, found)) - min(map(min, found)) > 5


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_head_reads_the_positions_asked_for_and_its_cap_is_kept(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = opened(make(kind, tmp_path, tiny_tokenizer))
    seen: list[torch.Size] = []
    speaker.head.register_forward_hook(lambda module, given, output: seen.append(given[0].shape))
    given = speaker._inputs([np.array([1, 5, 6, 7]), np.array([1, 9])], "right")
    asked = torch.tensor([[False, True, False, True], [True, False, False, False]])
    with torch.inference_mode():
        full = plain(tmp_path)(**given).logits
        torch.testing.assert_close(speaker._logits(given, asked), full[asked])
    assert seen == [torch.Size([1, 3, 32])]
    assert (full.abs().max() < 3) == (kind == "gemma2")


@pytest.mark.parametrize("budget", [1, 30, 1000])
def test_the_budget_of_a_batch_changes_nothing(
    tmp_path: Path, budget: int, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = opened(make("gemma2", tmp_path, tiny_tokenizer), budget=budget)
    other = opened(tmp_path, budget=200)
    for ours, theirs in zip(
        speaker.log_likelihoods(candidates(speaker), names(PROMPTS)),
        other.log_likelihoods(candidates(other), names(PROMPTS)),
        strict=True,
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_options_of_a_question_share_a_batch_where_they_fit(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = opened(make("gpt2", tmp_path, tiny_tokenizer))
    asked = [speaker.candidates(["one"] * 2, " ", ["two", "sun"]) for _ in range(8)]
    # Room for seven candidates, which would cut through the fourth question.
    speaker.budget = 7 * max(map(len, asked[0]))
    sizes: list[int] = []
    inner = speaker._log_likelihoods
    monkeypatch.setattr(
        speaker, "_log_likelihoods", lambda batch, side: (sizes.append(len(batch)), inner(batch, side))[1]
    )
    found = speaker.log_likelihoods(asked, names(asked))
    assert sizes == [6, 6, 4]
    assert all(one == pytest.approx(found[0]) for one in found)


def test_a_batch_beyond_the_memory_is_halved_until_it_fits(
    tmp_path: Path,
    tiny_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    speaker = opened(make("gpt2", tmp_path, tiny_tokenizer), budget=1000)
    expected = speaker.log_likelihoods(candidates(speaker), names(PROMPTS))
    inner, most = speaker._log_likelihoods, 3

    def bounded(batch: Sequence[Candidate], side: Any) -> list[float]:
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(batch, side)

    monkeypatch.setattr(speaker, "_log_likelihoods", bounded)
    with caplog.at_level(logging.WARNING, "tessera"):
        found = speaker.log_likelihoods(candidates(speaker), names(PROMPTS))
    assert "going on with half as many" in caplog.text
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    most = 0
    with pytest.raises(UserError, match=r"example 'q1': its \d+ tokens alone do not fit the memory"):
        speaker.log_likelihoods(candidates(speaker), names(PROMPTS))


def test_an_error_that_is_not_about_memory_is_raised(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = opened(make("gpt2", tmp_path, tiny_tokenizer))

    def broken(batch: Sequence[Candidate], side: Any) -> list[float]:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(speaker, "_log_likelihoods", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        speaker.log_likelihoods(candidates(speaker), names(PROMPTS))


def test_probabilities_are_taken_in_float32_whatever_the_model_runs_in(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = opened(make("gpt2", tmp_path, tiny_tokenizer), dtype="bfloat16")
    (candidate,) = speaker.candidates(["one two"], " ", ["again"])
    ((found,),) = speaker.log_likelihoods([[candidate]], ["q"])
    with torch.inference_mode():
        logits = speaker.model(input_ids=torch.tensor(candidate.ids[None])).logits[0]
    assert logits.dtype == torch.bfloat16
    places = np.flatnonzero(candidate.own)
    expected = sum(float(logits[place - 1].float().log_softmax(-1)[candidate.ids[place]]) for place in places)
    assert found == pytest.approx(expected, abs=1e-6)


# --- tokens ---


def test_the_tokens_of_an_option_are_those_of_its_characters_and_the_space_before(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = opened(make("gpt2", tmp_path, tiny_tokenizer))
    for lead, option, own in ((" ", "again", " again"), ("\nIt is: ", "漢字", " 漢字"), ("", "again", "again")):
        (candidate,) = speaker.candidates(["the words"], lead, [option])
        assert speaker.tokenizer.decode(candidate.ids[candidate.own]) == own
        assert speaker.tokenizer.decode(candidate.ids[1:]) == f"the words{lead}{option}"
        assert candidate.own[-1]
    # A space that ends the prompt is the option's as well, or options of one token and of two would not be alike.
    (candidate,) = speaker.candidates(["the words "], "", ["again"])
    assert speaker.tokenizer.decode(candidate.ids[candidate.own]) == " again"


@pytest.mark.parametrize("own", [False, True])
def test_bos_comes_first_and_only_once(tmp_path: Path, own: bool, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("gpt2", tmp_path, tiny_tokenizer)
    if own:
        tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
        pieces = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        pieces.append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
        special = {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("<bos>", 1), ("<eos>", 2))
        }
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": pieces,
            "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special,
        }
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    speaker = opened(tmp_path)
    (candidate,), (prompt,) = speaker.candidates(["one"], " ", ["two"]), speaker.prompts(["one two"])
    assert (candidate.ids == 1).tolist() == [True] + [False] * (len(candidate) - 1)
    assert (2 in candidate.ids) == own
    assert not candidate.own[candidate.ids == 2].any()
    # What ends a text does not stand behind a prompt that the model is to go on from.
    assert prompt.tolist() == [1, *tiny_tokenizer("one two")["input_ids"]]


def test_a_prompt_stands_in_the_chat_template_of_its_model(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    make("gpt2", tmp_path, tiny_tokenizer)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ bos_token }}user: {{ messages[0]['content'] }}\n{% if add_generation_prompt %}model:{% endif %}"
    )
    speaker = opened(tmp_path, chat=True)
    (candidate,), (prompt,) = speaker.candidates(["one"], " ", ["two"]), speaker.prompts(["one"])
    assert speaker.tokenizer.decode(candidate.ids) == "<bos>user: one\nmodel: two"
    assert speaker.tokenizer.decode(candidate.ids[candidate.own]) == " two"
    assert speaker.tokenizer.decode(prompt) == "<bos>user: one\nmodel:"


# --- what it says ---


@torch.inference_mode()
def greedy(folder: Path, prompt: str, max_tokens: int, ends: Sequence[int]) -> tuple[str, float, list[int]]:
    """What a model says, one token at a time from the whole text; and how likely its tokens were."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), plain(folder)
    ids, likely, said = [1, *tokenizer(prompt)["input_ids"]], [], []
    for _ in range(max_tokens):
        steps = model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        ids.append(int(steps.argmax()))
        said.append(ids[-1])
        likely.append(float(steps.max()))
        if ids[-1] in ends or "\n" in tokenizer.decode([ids[-1]]):
            break
    text = tokenizer.decode(said, skip_special_tokens=True)
    return text.split("\n")[0].strip(), float(np.exp(np.mean(likely))), said


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_goes_on_as_one_prompt_at_a_time_does(
    tmp_path: Path, kind: str, tiny_tokenizer: PreTrainedTokenizerFast, recwarn: pytest.WarningsRecorder
) -> None:
    make(kind, tmp_path, tiny_tokenizer)
    # Settings for sampling, and a penalty that would change every answer, are no part of what a model finds likeliest.
    settings = tmp_path / "generation_config.json"
    extra = {"do_sample": True, "temperature": 0.3, "top_k": 2, "repetition_penalty": 50.0}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | extra))
    speaker = opened(tmp_path, budget=1000)
    found = speaker.go_on(speaker.prompts(PROMPTS), names(PROMPTS), 8)
    assert not list(recwarn)
    for said, prompt in zip(found, PROMPTS, strict=True):
        text, confidence, _ = greedy(tmp_path, prompt, 8, [2])
        assert said.text == text
        assert said.confidence == pytest.approx(confidence, rel=1e-4)
    assert len({said.text for said in found}) > 1


def test_an_answer_ends_with_the_line_or_with_the_turn(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    make("gpt2", tmp_path, tiny_tokenizer)
    spoken = [greedy(tmp_path, prompt, 8, [])[2] for prompt in PROMPTS]
    broken, turn = spoken[0][2], next(token for token in spoken[1] if token not in spoken[0])
    # Where the model would say one token, it now says a line break.
    newline = tiny_tokenizer.convert_tokens_to_ids("Ċ")
    model = plain(tmp_path)
    with torch.no_grad():
        model.lm_head.weight[[broken, newline]] = model.lm_head.weight[[newline, broken]]
    model.generation_config.eos_token_id = [2, turn]
    model.save_pretrained(tmp_path)
    speaker = opened(tmp_path, budget=1000)
    assert speaker.ends == [2, turn]
    found = speaker.go_on(speaker.prompts(PROMPTS), names(PROMPTS), 8)
    lengths = []
    for said, prompt in zip(found, PROMPTS, strict=True):
        text, confidence, ids = greedy(tmp_path, prompt, 8, [2, turn])
        lengths.append(len(ids))
        assert said.text == text
        assert said.confidence == pytest.approx(confidence, rel=1e-4)
    assert lengths[0] <= 3
    assert len(set(lengths)) > 1


# --- refusals ---


def test_soft_capped_attention_is_refused_in_any_other_implementation(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    make("gemma2", tmp_path, tiny_tokenizer)
    with pytest.raises(UserError, match=r"models\.m\.attention: gemma2 caps its attention scores"):
        opened(tmp_path, attention="sdpa")


@pytest.mark.parametrize("decoder", [False, True])
def test_a_model_that_sees_what_it_is_to_predict_is_refused(
    tmp_path: Path, decoder: bool, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=400, initializer_range=0.5, is_decoder=decoder, **shape)
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    if decoder:
        opened(tmp_path)
    else:
        with pytest.raises(UserError, match=r"models\.m: BertLMHeadModel sees the words that it is to predict"):
            opened(tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    transformers.T5Config(vocab_size=400, d_model=32, num_layers=1).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"models\.m: a model of type t5 is no language model"):
        opened(tmp_path)


@pytest.mark.parametrize("ask", ["likelihood", "generation"])
def test_values_that_are_not_finite_are_one_line(
    tmp_path: Path, ask: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    speaker = opened(make("gpt2", tmp_path, tiny_tokenizer))
    with torch.no_grad():
        speaker.head.weight.fill_(float("nan"))
    prompts, options = speaker.prompts(["one"]), speaker.candidates(["one"], " ", ["two"])
    with pytest.raises(UserError, match="example 'q0': it gives values that are not finite in float32"):
        speaker.log_likelihoods([options], ["q0"]) if ask == "likelihood" else speaker.go_on(prompts, ["q0"], 2)
