from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tessera.demo import language_model, quiz, requests, texts, tokenizer
from tessera.files import read_json, sha256_file

PROSE = [row["text"] for row in requests.generate(100, seed=1)]
LESSONS = quiz.lessons(quiz.generate(40, seed=1), PROSE, seed=1)
SETTINGS = {"steps": 40, "seed": 5, "threads": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tokenizer.train(PROSE, 500, folder / "tokenizer")
    language_model.train(PROSE, folder / "tokenizer", folder / "model", hidden_size=32, layers=2, **SETTINGS)
    return folder / "model"


@pytest.fixture(scope="module")
def tuned(trained: Path) -> tuple[Path, dict[str, Any]]:
    folder = trained.parent / "tuned"
    return folder, language_model.tune(trained, LESSONS, folder, **SETTINGS)


def test_tuning_makes_the_lessons_likelier(tuned: tuple[Path, dict[str, Any]]) -> None:
    assert tuned[1]["heldout_loss"] < tuned[1]["heldout_loss_before"] - 0.3


def test_it_starts_from_the_trained_model(trained: Path, tmp_path: Path) -> None:
    record = language_model.tune(trained, PROSE, tmp_path / "hardly", **{**SETTINGS, "steps": 1})
    assert record["heldout_loss_before"] == read_json(trained / "demo.json")["heldout_loss"]


def test_the_folder_holds_a_model_of_the_same_shape_and_tokenizer(
    trained: Path, tuned: tuple[Path, dict[str, Any]]
) -> None:
    assert read_json(tuned[0] / "demo.json") == tuned[1]
    assert {path.name for path in tuned[0].iterdir()} == {path.name for path in trained.iterdir()}
    models = [
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager") for folder in (trained, tuned[0])
    ]
    shapes = [{name: weights.shape for name, weights in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
    assert not torch.equal(models[0].model.embed_tokens.weight, models[1].model.embed_tokens.weight)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (trained, tuned[0])]
    assert tokenizers[0](LESSONS)["input_ids"] == tokenizers[1](LESSONS)["input_ids"]


def test_the_same_seed_gives_the_same_weights(
    trained: Path, tuned: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    torch.manual_seed(99)
    language_model.tune(trained, LESSONS, tmp_path / "again", **SETTINGS)
    assert sha256_file(tmp_path / "again/model.safetensors") == sha256_file(tuned[0] / "model.safetensors")


def test_the_world_on_disk_has_quiz_and_lessons(tmp_path: Path) -> None:
    names = ("docstrings", "requests", "prose", "quiz", "tuning")
    texts.write(
        **{f"{name}_table": tmp_path / f"{name}.parquet" for name in names},
        libraries=["filelock", "tqdm"],
        per_library=10,
        meanings=40,
        marked=0.0,
        questions=50,
        seed=3,
    )
    assert len(texts.read_prose(tmp_path / "quiz.parquet")) == 50
    tuning, prose = (texts.read_prose(tmp_path / f"{name}.parquet") for name in ("tuning", "prose"))
    # What is rehearsed is what the models were trained on, and never the text of a task.
    assert len(set(tuning) & set(prose)) == 200
    assert not set(tuning) & set(texts.read_prose(tmp_path / "requests.parquet"))
