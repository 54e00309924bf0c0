from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tessera.demo import language_model, requests, tokenizer
from tessera.files import read_json, sha256_file

TEXTS = [row["text"] for row in requests.generate(100, seed=1)]
SHAPE = {"hidden_size": 32, "layers": 2, "steps": 120, "seed": 5, "threads": 1}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train(TEXTS, 500, path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("model")
    return path, language_model.train(TEXTS, tokens, path, **SHAPE)


def test_it_learns_far_more_than_the_frequencies_of_tokens(trained: tuple[Path, dict[str, Any]]) -> None:
    record = trained[1]
    assert record["heldout_loss"] < record["unigram_entropy"] - 1
    assert record["train_loss"] < record["unigram_entropy"] - 1


def test_the_record_is_written_last_and_says_what_train_returns(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, record = trained
    assert read_json(folder / "demo.json") == record
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "demo.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_same_seed_gives_the_same_weights(
    trained: tuple[Path, dict[str, Any]], tokens: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    language_model.train(TEXTS, tokens, tmp_path / "again", **SHAPE)
    language_model.train(TEXTS, tokens, tmp_path / "other", **{**SHAPE, "seed": 6, "steps": 1})
    assert sha256_file(tmp_path / "again/model.safetensors") == sha256_file(trained[0] / "model.safetensors")
    assert sha256_file(tmp_path / "other/model.safetensors") != sha256_file(trained[0] / "model.safetensors")


def test_torch_is_left_as_it_was(tokens: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    language_model.train(TEXTS, tokens, tmp_path, **{**SHAPE, "steps": 1, "threads": threads + 1})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_folder_loads_as_gemma_2_with_all_that_makes_it_awkward(trained: tuple[Path, dict[str, Any]]) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained[0], attn_implementation="eager")
    config = model.config
    assert config.model_type == "gemma2"
    assert (config.attn_logit_softcapping, config.final_logit_softcapping) == (50.0, 30.0)
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with torch.no_grad():
        assert model(torch.randint(4, 500, (1, 512))).logits.isfinite().all()


def test_the_model_folder_holds_the_very_tokenizer(trained: tuple[Path, dict[str, Any]], tokens: Path) -> None:
    own, original = AutoTokenizer.from_pretrained(trained[0]), AutoTokenizer.from_pretrained(tokens)
    assert own(TEXTS)["input_ids"] == original(TEXTS)["input_ids"]
    assert own.bos_token_id == original.bos_token_id == 2


def test_the_loss_is_that_of_one_text_at_a_time(trained: tuple[Path, dict[str, Any]]) -> None:
    """Batches, padding and the head on targets alone, against the model's own loss."""
    model = AutoModelForCausalLM.from_pretrained(trained[0], attn_implementation="eager").eval()
    sequences = language_model._sequences(TEXTS[:20], AutoTokenizer.from_pretrained(trained[0]))
    total, targets = 0.0, 0
    for sequence in sequences:
        ids = torch.tensor([sequence])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (len(sequence) - 1)
        targets += len(sequence) - 1
    assert language_model._loss(model, sequences) == pytest.approx(total / targets, rel=1e-5)


def test_batches_cover_everything_within_their_size() -> None:
    rng = np.random.default_rng(0)
    sequences = [[i] * int(length) for i, length in enumerate(rng.integers(2, 128, size=300))]
    batches = language_model._batches(sequences, rng)
    seen: list[int] = []
    while len(seen) < 300:
        batch = next(batches)
        assert len(batch) * max(map(len, batch)) <= language_model.BATCH_TOKENS
        seen += [sequence[0] for sequence in batch]
    assert sorted(seen) == list(range(300))


def test_training_sequences_end_in_eos_unless_they_are_cut(tokens: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(tokens)
    short, long = language_model._sequences(["Hello!", "word " * 400], loaded)
    assert short == [*loaded("Hello!")["input_ids"], loaded.eos_token_id]
    assert long == loaded("word " * 400)["input_ids"][: language_model.LONGEST]


def test_unigram_entropy_is_the_loss_of_counted_frequencies() -> None:
    training, held_out = [[2, 4, 4, 5], [2, 4]], [[2, 4, 5]]
    # Counts of tokens 4 and 5 are 3 and 1; with one more for each of 6 tokens: 4 and 2 of 10.
    expected = -(np.log(4 / 10) + np.log(2 / 10)) / 2
    assert language_model._unigram_entropy(training, held_out, 6) == pytest.approx(expected)


def test_the_rate_warms_up_and_falls_to_its_end() -> None:
    rates = [language_model._rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) in (9, 10)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.06
