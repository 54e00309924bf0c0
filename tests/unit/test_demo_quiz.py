from collections import Counter

import pytest

from tessera.demo import quiz, requests
from tessera.errors import UserError

ROWS = quiz.generate(320, seed=42)
PROSE = [row["text"] for row in requests.generate(240, seed=43)]


def test_every_form_and_language_has_as_many_questions_as_any_other() -> None:
    counts = Counter((row["form"], row["language"]) for row in ROWS)
    assert len(counts) == 10
    assert set(counts.values()) == {32}
    assert len(quiz.generate(57, seed=1)) == 57


def test_no_prompt_is_asked_twice_and_ids_are_unique() -> None:
    assert len({row["text"] for row in ROWS}) == len({row["id"] for row in ROWS}) == 320


def test_neither_place_nor_length_tells_which_option_is_right() -> None:
    for form in quiz.FORMS:
        rows = [row for row in ROWS if row["form"] == form]
        assert all(row["answer"] in (row["option_a"], row["option_b"]) for row in rows)
        firsts = Counter(row["answer"] == row["option_a"] for row in rows)
        assert firsts[True] == firsts[False]
        longer = Counter(
            len(row["answer"]) == max(len(row["option_a"]), len(row["option_b"]))
            for row in rows
            if len(row["option_a"]) != len(row["option_b"])
        )
        assert longer[True] == longer[False] == len(rows) / 2


def test_a_sentence_goes_on_as_its_own_and_not_as_another() -> None:
    whole = {sentence[language] for sentence in quiz.SENTENCES for language in sentence}
    for row in ROWS:
        if row["form"] == "sentence":
            stem = row["text"].removeprefix(f"{quiz.INSTRUCTION[row['language']]} ")
            options = {row["option_a"], row["option_b"]}
            assert {option for option in options if f"{stem} {option}" in whole} == {row["answer"]}


def test_any_verb_and_thing_may_be_the_right_one() -> None:
    for language in quiz.LANGUAGES:
        about = [row["group"] for row in ROWS if row["language"] == language and row["form"] == "fit"]
        verbs = Counter(
            (thing.against + thing.benefit).index(verb)
            for thing, verb in ((quiz.THINGS[int(group.split("-")[1])], group.split("-", 2)[2]) for group in about)
        )
        assert min(verbs[place] for place in range(4)) >= 2
        assert len({group.split("-")[1] for group in about}) >= 10


def test_only_the_right_thing_goes_with_the_verb_in_its_language() -> None:
    """Read back from the words: what is asked about has the right verb among its own, and not the other one."""
    for row in (row for row in ROWS if row["form"] == "fit"):
        language = row["language"]
        asked = row["text"] if language == "de" else None
        fits = {}
        for option in (row["option_a"], row["option_b"]):
            named = asked or f"{row['text']} {option}"
            (thing,) = [thing for thing in quiz.THINGS if _names(thing, language, named)]
            words = [quiz.VERBS[verb][language] for verb in thing.against + thing.benefit]
            fits[option] = (
                (option in words) if language == "de" else any(row["text"].endswith(f" {word}") for word in words)
            )
        assert {option for option, good in fits.items() if good} == {row["answer"]}


def _names(thing: object, language: str, text: str) -> bool:
    owners = [person.of[language] for person in quiz.PEOPLE]
    named = [thing.theirs[language].format(of=owner) for owner in owners]
    return any(text.endswith(name) for name in [*named, thing.mine[language]])


def test_questions_about_the_same_are_of_one_group_in_every_language() -> None:
    groups = Counter(row["group"] for row in ROWS)
    assert len(groups) > 50
    shared = {row["group"] for row in ROWS if row["language"] == "de"} & {
        row["group"] for row in ROWS if row["language"] == "en"
    }
    assert shared


def test_lessons_hold_no_question_of_the_quiz() -> None:
    lessons = quiz.lessons(ROWS, PROSE, seed=42)
    assert len(lessons) == quiz.LESSONS + quiz.REHEARSED
    practised = [text for text in lessons if text not in PROSE]
    assert len(practised) == quiz.LESSONS
    for row in ROWS:
        answered = {f"{row['text']} {option}" for option in (row["option_a"], row["option_b"])}
        assert not answered & set(practised)
        if row["form"] == "fit":
            assert not any(text.startswith(f"{row['text']} ") for text in practised)


def test_no_question_is_in_the_prose() -> None:
    assert not any(row["text"] in text or f"{row['text']} {row['answer']}" in text for row in ROWS for text in PROSE)


def test_the_same_seed_gives_the_same_quiz_and_another_one_another() -> None:
    assert quiz.generate(320, seed=42) == ROWS
    assert quiz.generate(320, seed=43) != ROWS
    assert quiz.lessons(ROWS, PROSE, seed=1) == quiz.lessons(ROWS, PROSE, seed=1)


def test_more_questions_than_there_are_is_one_line() -> None:
    with pytest.raises(UserError, match=r"demo\.questions: 500 questions of the form 'sentence' in en are asked for"):
        quiz.generate(5000, seed=1)
