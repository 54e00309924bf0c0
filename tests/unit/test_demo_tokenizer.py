from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tessera.demo import requests, tokenizer
from tessera.errors import UserError
from tessera.files import read_json, sha256_file

TEXTS = [row["text"] for row in requests.generate(40, seed=1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train(TEXTS, 500, path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_it_loads_as_a_fast_tokenizer_of_the_asked_size(loaded: PreTrainedTokenizerBase) -> None:
    assert loaded.is_fast
    assert len(loaded) == 500
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.bos_token_id, loaded.unk_token_id) == (0, 1, 2, 3)


def test_it_begins_every_text_with_bos_and_ends_none_with_eos(loaded: PreTrainedTokenizerBase) -> None:
    for ids in loaded([*TEXTS, ""])["input_ids"]:
        assert ids[0] == loaded.bos_token_id
        assert loaded.bos_token_id not in ids[1:]
        assert loaded.eos_token_id not in ids


@pytest.mark.parametrize(
    "text", ["plain", "  spaced   out ", "ñandú œuvre", "漢字かな", "🙂👩‍👩‍👧", "\t\n\x00\u200d", "١٢٣"]
)
def test_any_text_comes_back_unchanged_without_unknown_tokens(loaded: PreTrainedTokenizerBase, text: str) -> None:
    ids = loaded(text)["input_ids"]
    assert loaded.unk_token_id not in ids
    assert loaded.decode(ids, skip_special_tokens=True) == text


def test_merges_shorten_the_texts_they_come_from(loaded: PreTrainedTokenizerBase) -> None:
    tokens = sum(len(ids) - 1 for ids in loaded(TEXTS)["input_ids"])
    assert tokens < 0.6 * sum(len(text.encode()) for text in TEXTS)


def test_the_same_texts_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    tokenizer.train(TEXTS, 500, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "demo.json"):
        assert sha256_file(folder / name) == sha256_file(tmp_path / name)


def test_the_record_tells_what_it_was_trained_on(folder: Path) -> None:
    assert read_json(folder / "demo.json") == {"characters": sum(map(len, TEXTS)), "texts": 200, "vocabulary": 500}


@pytest.mark.parametrize(("vocabulary", "wrong"), [(200, "has no room"), (100_000, "the texts give")])
def test_a_vocabulary_out_of_reach_is_a_user_error(tmp_path: Path, vocabulary: int, wrong: str) -> None:
    with pytest.raises(UserError, match=rf"demo\.vocabulary: .*{wrong}"):
        tokenizer.train(TEXTS, vocabulary, tmp_path)
    assert not (tmp_path / "demo.json").exists()
