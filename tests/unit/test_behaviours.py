"""Which questions a model answers right: reading them, scoring them, and what cannot be scored."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tessera import behaviours
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json, sha256_file

READING = {"dtype": "float32", "attention": "eager", "max_length": 64, "chat": False}
LIKELIHOOD = {
    "rule": "likelihood",
    "dataset": "quiz",
    "model": "m",
    "options": ["{a}", "{b}"],
    "answer": "{answer}",
    "per": "sum",
    "lead": " ",
    "title": None,
    "reading": READING,
}
GENERATION = {
    "rule": "generation",
    "dataset": "quiz",
    "model": "m",
    "answers": ["{answer}"],
    "max_tokens": 4,
    "match": "exact",
    "title": None,
    "reading": READING,
}
PROMPTS = ["one", "the quick brown fox jumps over", "numbers and punctuation;", "a short"]
COLUMNS: dict[str, list[str | None]] = {
    "a": ["two", "the lazy dog", "no!", "text"],
    "b": ["sun", "it", "too", "1"],
    "answer": ["two", "The lazy dog.", "1", "0"],
}


def table(prompts: list[str] = PROMPTS, **columns: list[str | None]) -> Table:
    n = len(prompts)
    return Table(
        ids=[f"q{number}" for number in range(n)],
        texts=prompts,
        images=None,
        labels=np.array(["maths", "art"] * n, dtype=object)[:n],
        subsets=np.array(["all"] * n, dtype=object),
        splits=[None] * n,
        groups=np.arange(n),
        columns=columns or COLUMNS,
    )


def ask(tmp_path: Path, model: Path, questions: Table, entry: dict[str, Any], **changes: Any) -> tuple[Any, Any]:
    output, record = tmp_path / "out.parquet", tmp_path / "out.json"
    behaviours.run(
        "quiz-m",
        questions,
        {**entry, **changes},
        model=("m", model, "0" * 64),
        dataset_sha256="1" * 64,
        output=output,
        record=record,
        device="cpu",
        batch_tokens=200,
    )
    return pq.read_table(output).to_pylist(), read_json(record)


@torch.inference_mode()
def plainly(folder: Path, prompt: str, option: str) -> tuple[float, int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    start, ids = 1 + len(tokenizer(prompt)["input_ids"]), [1, *tokenizer(f"{prompt} {option}")["input_ids"]]
    likely = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(likely[place - 1, ids[place]]) for place in range(start, len(ids))), len(ids) - start


# --- asking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["sum", "token", "character"])
def test_the_answer_is_the_option_that_the_plain_model_finds_likeliest(
    tmp_path: Path, tiny_model: Path, per: str
) -> None:
    rows, record = ask(tmp_path, tiny_model, table(), LIKELIHOOD, per=per)
    right = ["two", "the lazy dog", "too", "text"]
    for number, row in enumerate(rows):
        options = [COLUMNS["a"][number], COLUMNS["b"][number]]
        scores = []
        for option in options:
            total, tokens = plainly(tiny_model, PROMPTS[number], str(option))
            scores.append(total / {"sum": 1, "token": tokens, "character": len(str(option))}[per])
        said = int(np.argmax(scores))
        assert row["id"] == f"q{number}"
        assert row["prompt"] == PROMPTS[number]
        assert row["options"] == options
        assert row["scores"] == pytest.approx(scores, abs=1e-4)
        assert row["said"] == options[said]
        assert row["answer"] == right[number]
        assert row["right"] == (row["said"] == right[number])
        assert row["confidence"] == pytest.approx(math.exp(scores[said]) / sum(map(math.exp, scores)), abs=1e-4)
        assert row["reason"] is None
    assert record["n"] == record["n_scored"] == 4
    assert record["n_right"] == sum(row["right"] for row in rows)
    assert record["accuracy"] == record["n_right"] / 4
    assert record["chance"] == 0.5
    assert record["left_out"] == {}


def test_the_record_says_what_was_asked_of_whom_and_holds_the_digest_of_the_answers(
    tmp_path: Path, tiny_model: Path
) -> None:
    _, record = ask(tmp_path, tiny_model, table(), LIKELIHOOD, title="Only a name")
    assert record["sha256"] == sha256_file(tmp_path / "out.parquet")
    identity = record["identity"]
    assert (identity["model"], identity["dataset"]) == ("0" * 64, "1" * 64)
    assert identity["entry"] == {key: value for key, value in LIKELIHOOD.items() if key != "title"}
    assert identity["torch"] == torch.__version__
    assert identity["chat"] is None


def test_the_same_questions_give_the_same_bytes(tmp_path: Path, tiny_model: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        ask(tmp_path / folder, tiny_model, table(), LIKELIHOOD)
    for name in ("out.parquet", "out.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_question_that_cannot_be_scored_stays_with_its_reason(tmp_path: Path, tiny_model: Path) -> None:
    questions = table(
        ["one", "again " * 70, "two", "three", "four", "five"],
        a=["x", "x", "x", None, "x", "x"],
        b=["y", "y", "x ", "y", "y", "y"],
        answer=["x", "x", "x", "y", "z", " "],
    )
    rows, record = ask(tmp_path, tiny_model, questions, LIKELIHOOD)
    assert [row["reason"] for row in rows] == [
        None,
        "longer than 64 tokens",
        "two options are the same",
        "fewer than two options",
        "the right answer is none of the options",
        "no right answer is told",
    ]
    assert [row["right"] is None for row in rows] == [False, *[True] * 5]
    assert all(row["scores"] == [] and row["said"] is None for row in rows[1:])
    assert (record["n"], record["n_scored"]) == (6, 1)
    assert record["left_out"]["longer than 64 tokens"] == {"count": 1, "examples": ["q1"]}
    assert sum(reason["count"] for reason in record["left_out"].values()) == 5


def test_a_question_may_have_fewer_options_than_others(tmp_path: Path, tiny_model: Path) -> None:
    questions = table(["one", "two"], a=["x", "x"], b=["y", None], c=["z", "z"], answer=["2", "2"])
    rows, record = ask(tmp_path, tiny_model, questions, LIKELIHOOD, options=["{a}", "{b}", "{c}"])
    assert [row["options"] for row in rows] == [["x", "y", "z"], ["x", "z"]]
    assert [row["answer"] for row in rows] == ["z", "z"]
    assert record["chance"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_options_may_be_words_and_the_answer_the_label(tmp_path: Path, tiny_model: Path) -> None:
    rows, _ = ask(
        tmp_path, tiny_model, table(), LIKELIHOOD, options=["Maths", "about {subset}", "art"], answer="{label}"
    )
    assert rows[0]["options"] == ["Maths", "about all", "art"]
    assert [row["answer"] for row in rows] == ["Maths", "art", "Maths", "art"]


def test_what_the_model_says_itself_is_compared_with_the_answers(tmp_path: Path, tiny_model: Path) -> None:
    rows, record = ask(tmp_path, tiny_model, table(), GENERATION, max_tokens=3)
    told = [rows[0]["said"], "nothing of the kind", rows[2]["said"], None]
    questions = table(PROMPTS, first=["wrong", *told[1:]], second=told)
    again, record = ask(tmp_path, tiny_model, questions, GENERATION, answers=["{first}", "{second}"], max_tokens=3)
    assert [row["said"] for row in again[:3]] == [row["said"] for row in rows[:3]]
    assert [row["right"] for row in again] == [True, False, True, None]
    assert again[0]["answer"] == told[0]
    assert again[1]["answer"] == "nothing of the kind"
    assert again[3]["reason"] == "no right answer is told"
    assert again[0]["options"] == []
    assert 0 < again[0]["confidence"] < 1
    assert record["chance"] is None
    assert (record["n_scored"], record["n_right"]) == (3, 2)


def test_a_prompt_needs_room_for_the_answer(tmp_path: Path, tiny_model: Path) -> None:
    rows, _ = ask(tmp_path, tiny_model, table(["one", "1" * 60], answer=["1", "1"]), GENERATION, max_tokens=10)
    assert [row["reason"] for row in rows] == [None, "longer than 54 tokens"]


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        (
            LIKELIHOOD,
            {"options": ["{a}", "{c}"]},
            "options: the dataset has no column 'c'; it has text, label, subset, a, b",
        ),
        (LIKELIHOOD, {"answer": "{right}"}, "answer: the dataset has no column 'right'"),
        (GENERATION, {"answers": ["{right}"]}, "answers: the dataset has no column 'right'"),
        (LIKELIHOOD, {"options": ["{a", "b"]}, "options: '{a' is no template"),
        (
            LIKELIHOOD,
            {"answer": "neither"},
            r"no question of the dataset can be scored \(of 4: the right answer is none",
        ),
        (LIKELIHOOD, {"reading": READING | {"max_length": 2}}, r"can be scored \(of 4: longer than 2 tokens\)"),
        (GENERATION, {"max_tokens": 64}, r"can be scored \(of 4: longer than 0 tokens\)"),
    ],
)
def test_what_no_question_can_be_scored_with_is_one_line(
    tmp_path: Path, tiny_model: Path, entry: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"^behaviours\.quiz-m.*{message}"):
        ask(tmp_path, tiny_model, table(), entry, **changes)
    assert not list(tmp_path.glob("out*"))


def test_images_are_no_questions(tmp_path: Path, tiny_model: Path) -> None:
    images = table()
    images = Table(**{**vars(images), "texts": None, "images": [b""] * 4})
    with pytest.raises(UserError, match=r"behaviours\.quiz-m\.dataset: it has images"):
        ask(tmp_path, tiny_model, images, GENERATION)


def test_a_token_that_is_no_word_to_the_model_leaves_its_question_out(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<word-{number}>" for number in range(20)])
    tokenizer.save_pretrained(folder)
    questions = table(["one", "one <word-19>"], a=["x", "x"], b=["y", "y"], answer=["x", "x"])
    rows, _ = ask(tmp_path, folder, questions, LIKELIHOOD)
    assert [row["reason"] for row in rows] == [None, "it holds a token that is no word to the model"]


# --- comparing texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("The  Eiffel\tTower.", "eiffel tower"),
        ("“the cat”", "cat"),
        ("A", "a"),
        ("(B)", "b"),
        ("\N{FULLWIDTH DIGIT FIVE}0", "50"),
        ("-5", "-5"),
        ("- five", "five"),
        ("Straße", "strasse"),
        ("rock'n'roll!", "rock'n'roll"),
        ("?!", ""),
    ],
)
def test_a_text_is_compared_by_what_it_says(text: str, says: str) -> None:
    assert behaviours.normalised(text) == says


@pytest.mark.parametrize(
    ("said", "answer", "matches"),
    [
        ("Yes.", "yes", {"exact", "starts", "contains"}),
        ("Yes, because", "yes", {"starts", "contains"}),
        ("yesterday", "yes", set()),
        ("I do not know", "no", set()),
        ("It is the sun", "Sun", {"contains"}),
        ("C++ is it", "c++", {"starts", "contains"}),
        ("", "yes", set()),
    ],
)
def test_agreement_is_word_by_word(said: str, answer: str, matches: set[str]) -> None:
    assert {match for match in ("exact", "starts", "contains") if behaviours.agrees(said, answer, match)} == matches


@pytest.mark.parametrize(
    ("options", "told", "right"),
    [
        (["1", "0"], "1", "1"),
        (["x", "y"], "1", "y"),
        (["x", None, "z"], "2", "z"),
        (["x", None, "z"], "1", None),
        (["x", "y"], "2", None),
        (["x", "y"], "-1", None),
        (["Yes", "No"], "yes.", "Yes"),
        (["A", "B"], "a", "A"),
        (["the cat", "A cat"], "A cat", "A cat"),
        (["the cat", "A cat"], "cat", None),
    ],
)
def test_the_right_option_is_told_by_text_or_failing_that_by_number(
    options: list[str | None], told: str, right: str | None
) -> None:
    assert behaviours.right_option(options, told) == right
