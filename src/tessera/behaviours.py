"""Whether a model answers questions right: labels for those who want to predict it from how models read the questions.

A question is an example of a dataset, and its text is the prompt. Nothing is added to it, so that what answers is asked the
very text that others read. There are two rules. `likelihood`: the model's answer is the option that it finds most likely
after the prompt. `generation`: its answer is what it goes on with, greedily, to the end of the line.

Texts are compared by what they say: less case, white space, English articles and punctuation around them. A question that
cannot be scored, because it is too long or has no right option, stays in the table with the reason, and is never right or
wrong in silence.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera import cards
from tessera.continuations import Candidate, Speaker
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import replacing, sha256_file, write_json
from tessera.models import made_with
from tessera.templates import columns, fill

# Questions named in the record for each reason to leave some out.
NAMED = 5
ARTICLES = {"a", "an", "the"}

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        pa.field("said", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("right", pa.bool_()),
        pa.field("confidence", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)


@dataclass
class Question:
    """A question and, in the end, what became of it. Without `reason` it is scored."""

    id: str
    prompt: str
    options: list[str]
    answer: str | None
    right_answers: list[str]
    reason: str | None = None
    scores: list[float] | None = None
    said: str | None = None
    right: bool | None = None
    confidence: float | None = None

    def row(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in SCHEMA.names}
        return shown | {"scores": self.scores or []}


def run(
    name: str,
    table: Table,
    entry: Mapping[str, Any],
    *,
    model: tuple[str, Path, str],
    dataset_sha256: str,
    output: Path,
    record: Path,
    device: str,
    batch_tokens: int,
) -> None:
    """Ask the model every question of the dataset, and write what it answered to `output` and then a summary to `record`.

    `entry` is that of the behaviour in a config, with the model's `dtype`, `attention`, `max_length` and `chat` under
    `reading`. `model` is (id, folder, sha256).
    """
    key = f"behaviours.{name}"
    likelihood = entry["rule"] == "likelihood"
    found = (options_of if likelihood else answers_of)(table, entry, key)
    _require_some(found, key)
    model_id, folder, model_sha256 = model
    with cards.take(device) as taken:
        speaker = Speaker(folder, **entry["reading"], device=taken, key=f"models.{model_id}", budget=batch_tokens)
        (choose if likelihood else say)(speaker, found, entry)
    _require_some(found, key)
    with replacing(output) as partial:
        rows = pa.Table.from_pylist([question.row() for question in found], schema=SCHEMA)
        pq.write_table(rows, partial, compression="zstd")
    identity = {
        "dataset": dataset_sha256,
        "model": model_sha256,
        "entry": {key: value for key, value in entry.items() if key != "title"},
        "chat": speaker.template.sha256 if speaker.template else None,
        **made_with(),
    }
    write_json(record, summary(found) | {"identity": identity, "sha256": sha256_file(output)})


def summary(found: Sequence[Question]) -> dict[str, Any]:
    """Counts and shares. `chance` is that of an option drawn blindly; where there are no options there is none."""
    scored = [question for question in found if question.reason is None]
    left_out: dict[str, list[str]] = {}
    for question in found:
        if question.reason is not None:
            left_out.setdefault(question.reason, []).append(question.id)
    options = [len(question.options) for question in scored]
    right = sum(bool(question.right) for question in scored)
    return {
        "n": len(found),
        "n_scored": len(scored),
        "n_right": right,
        "accuracy": right / len(scored),
        "chance": float(np.mean([1 / number for number in options])) if all(options) else None,
        "left_out": {reason: {"count": len(ids), "examples": ids[:NAMED]} for reason, ids in sorted(left_out.items())},
    }


# --- questions -----------------------------------------------------------------------------------------------------


def options_of(table: Table, entry: Mapping[str, Any], key: str) -> list[Question]:
    """The questions with their options. Where a question has nothing in a column, it has no such option."""
    values = _values(table, [*entry["options"]], f"{key}.options") | _values(table, [entry["answer"]], f"{key}.answer")
    found = []
    for row, (name, prompt) in enumerate(zip(table.ids, _texts(table, key), strict=True)):
        filled = [_filled(template, values, row) for template in entry["options"]]
        options = [option for option in filled if option is not None]
        told = _filled(entry["answer"], values, row)
        answer = None if told is None else right_option(filled, told)
        question = Question(name, prompt, options, answer, [])
        if len(options) < 2:
            question.reason = "fewer than two options"
        elif len(set(options)) < len(options):
            question.reason = "two options are the same"
        elif told is None:
            question.reason = "no right answer is told"
        elif answer is None:
            question.reason = "the right answer is none of the options"
        found.append(question)
    return found


def answers_of(table: Table, entry: Mapping[str, Any], key: str) -> list[Question]:
    """The questions with all of their right answers that are there."""
    values = _values(table, entry["answers"], f"{key}.answers")
    found = []
    for row, (name, prompt) in enumerate(zip(table.ids, _texts(table, key), strict=True)):
        filled = [_filled(template, values, row) for template in entry["answers"]]
        # An answer of punctuation alone would agree with silence.
        answers = [answer for answer in filled if answer is not None and normalised(answer)]
        reason = None if answers else "no right answer is told"
        found.append(Question(name, prompt, [], answers[0] if answers else None, answers, reason))
    return found


def right_option(options: Sequence[str | None], told: str) -> str | None:
    """The option that is told to be right: by its text, by what its text says, or by its number from 0."""
    if told in options:
        return told
    same = [option for option in options if option is not None and normalised(option) == normalised(told)]
    if same:
        return same[0] if len(same) == 1 else None
    number = int(told) if re.fullmatch("[0-9]{1,4}", told) else len(options)
    return options[number] if number < len(options) else None


def _texts(table: Table, key: str) -> list[str]:
    if table.texts is None:
        raise UserError(f"{key}.dataset", "it has images where questions are texts", "choose a dataset of texts")
    return table.texts


def _values(table: Table, templates: Sequence[str], key: str) -> dict[str, Sequence[str | None]]:
    """What the columns hold that the templates name."""
    own: dict[str, Sequence[str | None]] = {
        "text": table.texts or [],
        "label": list(table.labels),
        "subset": list(table.subsets),
    }
    there = own | table.columns
    named = {name for template in templates for name in columns(template, key)}
    for name in sorted(named - there.keys()):
        wrong = f"the dataset has no column '{name}'; it has {', '.join(there)}"
        raise UserError(key, wrong, "add it to the columns of the dataset, or correct the name")
    return {name: there[name] for name in named}


def _filled(template: str, values: Mapping[str, Sequence[str | None]], row: int) -> str | None:
    """The template with a question's values, or None where one is missing or blank."""
    own = {name: values[name][row] for name in columns(template, "")}
    given = {name: value for name, value in own.items() if value is not None and value.strip()}
    return (fill(template, given).strip() or None) if len(given) == len(own) else None


def _require_some(found: Sequence[Question], key: str) -> None:
    reasons = Counter(question.reason for question in found)
    if not reasons[None]:
        reason, number = reasons.most_common(1)[0] if reasons else ("it has none", 0)
        wrong = f"no question of the dataset can be scored (of {number}: {reason})"
        raise UserError(key, wrong, "look at its options and answers, and at the model's max_length")


# --- answers -------------------------------------------------------------------------------------------------------


def choose(speaker: Speaker, found: Sequence[Question], entry: Mapping[str, Any]) -> None:
    """The option that the model finds most likely, of each question that can be scored."""
    open_ones = [question for question in found if question.reason is None]
    pairs = [(question.prompt, option) for question in open_ones for option in question.options]
    every = iter(speaker.candidates([prompt for prompt, _ in pairs], entry["lead"], [option for _, option in pairs]))
    asked, candidates = [], []
    for question in open_ones:
        own = list(islice(every, len(question.options)))
        question.reason = _trouble(speaker, own, speaker.limit)
        if question.reason is None:
            asked.append(question)
            candidates.append(own)
    likely = speaker.log_likelihoods(candidates, [question.id for question in asked])
    for question, own, values in zip(asked, candidates, likely, strict=True):
        divisors = {
            "sum": [1] * len(own),
            "token": [int(candidate.own.sum()) for candidate in own],
            "character": [len(option) for option in question.options],
        }[entry["per"]]
        scores = np.array(values) / divisors
        best = int(scores.argmax())
        question.scores, question.said = scores.tolist(), question.options[best]
        question.confidence = float(1 / np.exp(scores - scores[best]).sum())
        question.right = question.said == question.answer


def say(speaker: Speaker, found: Sequence[Question], entry: Mapping[str, Any]) -> None:
    """What the model says to each question that can be scored."""
    limit = min(speaker.limit, speaker.context - entry["max_tokens"])
    open_ones = [question for question in found if question.reason is None]
    asked, prompts = [], []
    for question, ids in zip(open_ones, speaker.prompts([one.prompt for one in open_ones]), strict=True):
        question.reason = _trouble(speaker, [Candidate(ids, np.zeros(len(ids), dtype=bool))], limit)
        if question.reason is None:
            asked.append(question)
            prompts.append(ids)
    said = speaker.go_on(prompts, [question.id for question in asked], entry["max_tokens"])
    for question, one in zip(asked, said, strict=True):
        agreed = [answer for answer in question.right_answers if agrees(one.text, answer, entry["match"])]
        question.said, question.confidence, question.right = one.text, one.confidence, bool(agreed)
        question.answer = agreed[0] if agreed else question.answer


def _trouble(speaker: Speaker, candidates: Sequence[Candidate], limit: int) -> str | None:
    """Why these cannot be read, or None."""
    if any(len(candidate) > limit for candidate in candidates):
        return f"longer than {limit} tokens"
    if any(len(candidate) == 0 or candidate.own[0] for candidate in candidates):
        return "nothing to read before the answer"
    if not all(speaker.knows(candidate.ids) for candidate in candidates):
        return "it holds a token that is no word to the model"
    return None


def agrees(said: str, answer: str, match: str) -> bool:
    """Whether what was said is the answer, starts with it or contains it, word by word."""
    said, answer = normalised(said), normalised(answer)
    if match == "exact":
        return said == answer
    whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    return bool(whole.match(said) if match == "starts" else whole.search(said))


def normalised(text: str) -> str:
    """What a text says: in NFKC, case folded, single spaces, no articles, no punctuation around it.

    Letters that are articles too, such as the options of an exam, are left where nothing else would be.
    """
    words = _bare(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())).split()
    return _bare(" ".join([word for word in words if word not in ARTICLES] or words))


def _bare(text: str) -> str:
    start, stop = 0, len(text)
    while start < stop and _is_edge(text[start]) and not _is_sign(text, start):
        start += 1
    while start < stop and _is_edge(text[stop - 1]):
        stop -= 1
    return text[start:stop]


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")


def _is_sign(text: str, position: int) -> bool:
    """A minus before a number, without which it would be another number."""
    return text[position] in "-\N{EN DASH}" and text[position + 1 : position + 2].isdigit()
