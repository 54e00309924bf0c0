import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, Gemma2ForCausalLM

from tessera.demo import digits, language_model, requests, tokenizer, vision
from tessera.errors import UserError
from tessera.files import read_json, sha256_file
from tessera.models import LanguageModel
from tessera.pictures import Picture

SHAPE = {"steps": 300, "seed": 5, "threads": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [row["text"] for row in requests.generate(60, seed=1)]
    root = tmp_path_factory.mktemp("base")
    tokenizer.train(texts, 500, root / "tokenizer")
    shape = {"hidden_size": 32, "layers": 2, "steps": 60}
    language_model.train(texts, root / "tokenizer", root / "model", **shape, seed=5, threads=1)
    return root / "model"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("vision")
    return folder, vision.train(base, digits.images(600, seed=5)[1], folder, **SHAPE)


# --- digits --------------------------------------------------------------------------------------------------------


def test_the_task_has_as_many_of_each_digit_and_shares_no_picture_with_the_others() -> None:
    task, others = digits.images(603, seed=1)
    assert (len(task), len(others)) == (603, 1797 - 603)
    assert set(Counter(row["label"] for row in task).values()) == {60, 61}
    assert not {row["id"] for row in task} & {row["id"] for row in others}


def test_a_picture_is_the_source_enlarged() -> None:
    (row,) = (row for row in digits.images(20, seed=1)[1] if row["id"] == "digit-1000")
    greys, labels = load_digits(return_X_y=True)
    pixels = np.array(Image.open(io.BytesIO(row["image"])))
    assert pixels.shape == (16, 16, 3)
    np.testing.assert_array_equal(pixels[::2, ::2, 1], np.round(greys[1000].reshape(8, 8) * 255 / 16))
    np.testing.assert_array_equal(pixels[::2, ::2], pixels[1::2, 1::2])
    assert row["label"] == digits.NAMES[labels[1000]]


def test_the_seed_decides_which_pictures_are_drawn() -> None:
    assert digits.images(50, seed=1) == digits.images(50, seed=1)
    assert digits.images(50, seed=1)[0] != digits.images(50, seed=2)[0]


@pytest.mark.parametrize("number", [0, 1797, 1790])
def test_more_pictures_than_there_are_is_one_line(number: int) -> None:
    with pytest.raises(UserError, match=r"demo\.digits: .* Mend: lower it"):
        digits.images(number, seed=1)


def test_every_name_stands_in_every_phrase() -> None:
    rows = digits.names()
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows)
    for phrase in {row["group"] for row in rows}:
        of_phrase = [row for row in rows if row["group"] == phrase]
        assert sorted(row["label"] for row in of_phrase) == sorted(digits.NAMES)
        assert all(row["label"] in row["text"] for row in of_phrase)


def test_tables_are_written_and_read_back(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.parquet" for name in ("task_table", "training_table", "names_table")}
    digits.write(**paths, number=30, seed=3)
    first = {name: sha256_file(path) for name, path in paths.items()}
    assert [digits.read(path) for path in paths.values()] == [*digits.images(30, 3), digits.names()]
    digits.write(**paths, number=30, seed=3)
    assert {name: sha256_file(path) for name, path in paths.items()} == first


# --- the model -----------------------------------------------------------------------------------------------------


def test_it_names_digits_far_more_often_than_by_chance(trained: tuple[Path, dict[str, Any]]) -> None:
    record = trained[1]
    assert record["digits_named"] > 0.3
    assert (record["image_tokens"], record["heldout_pictures"], record["pictures"]) == (4, 119, 1078)


def test_the_record_is_written_last_and_the_folder_names_no_other(
    trained: tuple[Path, dict[str, Any]], base: Path
) -> None:
    folder, record = trained
    assert read_json(folder / "demo.json") == record
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "demo.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not [path for path in folder.glob("*.json") if str(base) in path.read_text()]


def test_the_language_model_is_not_changed_by_a_bit(trained: tuple[Path, dict[str, Any]], base: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(trained[0], attn_implementation="eager")
    before = Gemma2ForCausalLM.from_pretrained(base).state_dict()
    after = model.model.language_model.state_dict()
    assert {f"model.{name}" for name in after} | {"lm_head.weight"} == set(before)
    assert all(torch.equal(after[name], before[f"model.{name}"]) for name in after)
    assert torch.equal(model.lm_head.weight, before["lm_head.weight"])


def test_training_that_changes_the_language_model_is_an_error(base: Path) -> None:
    before = Gemma2ForCausalLM.from_pretrained(base, attn_implementation="eager")
    model = vision._model(before, len(AutoTokenizer.from_pretrained(base)))
    vision._check_frozen(model, before)
    with torch.no_grad():
        model.model.language_model.norm.weight[0] += 1e-6
    with pytest.raises(AssertionError, match="norm"):
        vision._check_frozen(model, before)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, base: Path) -> None:
    rows = digits.images(1500, seed=5)[1]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(99)
        vision.train(base, rows, tmp_path / name, steps=3, seed=seed, threads=1)
    a, b, c = ({path.name: sha256_file(path) for path in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b
    assert a["model.safetensors"] != c["model.safetensors"]


def test_the_caption_accuracy_is_that_of_the_models_own_loss(trained: tuple[Path, dict[str, Any]]) -> None:
    """One picture and one caption at a time, by the processor's suffix and the model's loss."""
    folder = trained[0]
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    rows = digits.images(600, seed=5)[1]
    held_out = [rows[place] for place in np.random.default_rng(5).permutation(len(rows))[:25]]
    pictures = vision._pictures(held_out, processor)
    prompt = processor(images=[Image.new("RGB", (16, 16))], text=["<image>"])["input_ids"][0]
    captions = vision._captions(processor.tokenizer)
    captioner = vision.Captioner(model, prompt, captions)
    named, costs = 0, []
    for row in held_out:
        image = Image.open(io.BytesIO(row["image"]))
        own = []
        for name in digits.NAMES:
            given = processor(images=[image], text=["<image>"], suffix=[name])
            given = {key: torch.tensor(np.array(value)) for key, value in given.items()}
            tokens = int((given["labels"] >= 0).sum())
            with torch.inference_mode():
                own.append(model(**given).loss.item() * tokens)
        named += digits.NAMES[int(np.argmin(own))] == row["label"]
        costs.append(own[digits.NAMES.index(row["label"])])
    measured = vision._measured(captioner, pictures)
    tokens = sum(len(captions[digit]) for digit in pictures.digits)
    assert measured["digits_named"] == pytest.approx(named / 25)
    assert measured["heldout_loss"] == pytest.approx(sum(costs) / tokens, rel=1e-4)


def test_what_reads_published_models_reads_it(trained: tuple[Path, dict[str, Any]], base: Path) -> None:
    how: dict[str, Any] = {"places": [(1, "resid_post")], "dtype": "float32", "attention": "eager", "device": "cpu"}
    picture = Picture("e", digits.images(10, seed=1)[0][0]["image"])
    reader = LanguageModel(trained[0], **how, key="models.vision", images=True)
    (states,) = reader.read(reader.see([picture])).values()
    assert states.shape == (1, 6, 32)
    texts = [row["text"] for row in digits.names()[:4]]
    with_eyes, without = (LanguageModel(folder, **how, key="models.m") for folder in (trained[0], base))
    (a,), (b,) = (model.read(model.tokenize(texts, 50)).values() for model in (with_eyes, without))
    assert torch.equal(a, b)
