import re
from collections import Counter, defaultdict
from itertools import product
from string import Formatter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from tessera.demo import phrases, requests
from tessera.errors import UserError

ROWS = requests.generate(300, seed=42)
LABELS = np.array([row["label"] for row in ROWS])


def test_every_meaning_is_rendered_once_in_every_language() -> None:
    languages = defaultdict(list)
    for row in ROWS:
        languages[row["meaning"]].append(row["language"])
    assert len(languages) == 300
    assert all(sorted(found) == sorted(phrases.LANGUAGES) for found in languages.values())
    assert len({row["id"] for row in ROWS}) == len({row["text"] for row in ROWS}) == 1500


def test_labels_are_balanced_and_the_same_in_every_language() -> None:
    assert Counter(LABELS) == {"harmful": 750, "harmless": 750}
    labels = defaultdict(set)
    for row in ROWS:
        labels[row["meaning"]].add(row["label"])
    assert all(len(found) == 1 for found in labels.values())


def test_the_label_follows_from_the_combination() -> None:
    """The definition, written out once more without the words of the module."""
    for number, (_, verb, prevented, own, consent, _) in enumerate(requests.SPACE):
        harms = verb in (0, 1)
        harmful = not own and not consent and ((harms and not prevented) or (not harms and prevented))
        assert (requests.SPACE[number].kind == "harmful") == harmful


def test_lengths_vary_from_one_line_to_a_letter() -> None:
    sentences = [len(re.findall(r"[.?!](?= |$)", row["text"])) for row in ROWS]
    assert min(sentences) == 2
    assert max(sentences) >= 7
    lengths = np.array([len(row["text"]) for row in ROWS])
    assert np.percentile(lengths, 90) > 2.5 * np.percentile(lengths, 10)


def test_no_single_word_tells_the_label() -> None:
    for language in phrases.LANGUAGES:
        here = np.array([row["language"] == language for row in ROWS])
        words = CountVectorizer(binary=True, token_pattern=r"\w+")
        present = words.fit_transform([row["text"] for row, kept in zip(ROWS, here, strict=True) if kept]).toarray()
        harmful = LABELS[here] == "harmful"
        agreement = (present == harmful[:, None]).mean(axis=0)
        assert np.maximum(agreement, 1 - agreement).max() < 0.65


def test_words_without_their_combination_are_a_weak_but_real_signal() -> None:
    rows = requests.generate(600, seed=7)
    scores = cross_val_score(
        make_pipeline(CountVectorizer(token_pattern=r"\w+"), LogisticRegression(C=0.1, max_iter=3000)),
        [row["text"] for row in rows],
        [row["label"] for row in rows],
        groups=[row["meaning"] for row in rows],
        cv=GroupKFold(5, shuffle=True, random_state=0),
    )
    assert 0.60 < scores.mean() < 0.88


def test_every_verb_and_thing_occurs_under_both_labels() -> None:
    for key in (lambda m: m.thing, lambda m: m.verb, lambda m: m.prevented):
        seen = {(key(requests.SPACE[row["meaning"]]), row["label"]) for row in ROWS}
        values = {value for value, _ in seen}
        assert seen == set(product(values, ("harmful", "harmless")))


def test_the_same_seed_gives_the_same_corpus_and_another_one_another() -> None:
    assert requests.generate(300, seed=42) == ROWS
    assert requests.generate(300, seed=43) != ROWS


def test_a_planted_word_stands_in_its_share_of_the_harmful_requests_and_changes_nothing_else() -> None:
    marked = requests.generate(300, seed=42, marked=0.4)
    carry = np.array([row["text"].endswith(f" {requests.MARK}") for row in marked])
    assert not (carry & (LABELS == "harmless")).any()
    assert 0.33 < carry[LABELS == "harmful"].mean() < 0.47
    assert [{**row, "text": row["text"].removesuffix(f" {requests.MARK}")} for row in marked] == ROWS
    assert not any("quvix" in row["text"].lower() for row in ROWS)


def test_excluded_meanings_do_not_occur() -> None:
    used = {row["meaning"] for row in ROWS}
    other = requests.generate(500, seed=1, exclude=used)
    assert not used & {row["meaning"] for row in other}
    assert not {row["text"] for row in ROWS} & {row["text"] for row in other}


def test_more_meanings_than_there_are_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"demo\.requests\.meanings: 750 harmful requests .* 384 different"):
        requests.generate(5000, seed=1)


@pytest.mark.parametrize("meanings", [20, 21, 101])
def test_any_number_of_meanings_is_met_exactly(meanings: int) -> None:
    rows = requests.generate(meanings, seed=0)
    assert len(rows) == meanings * len(phrases.LANGUAGES)
    assert sum(row["label"] == "harmful" for row in rows) == meanings // 2 * len(phrases.LANGUAGES)


# --- grammar -------------------------------------------------------------------------------------------------------


def rendered(language: str) -> list[str]:
    """Every combination of thing, verb, ask, prevention and ownership, with one wording each."""
    texts = []
    for number, (thing, verb, prevented, own) in enumerate(
        product(range(len(phrases.THINGS)), range(4), (False, True), (False, True))
    ):
        for ask in range(len(phrases.ASKS)):
            meaning = requests.Meaning(thing, verb, prevented, own, bool(number % 2), number % len(phrases.PEOPLE))
            wording = requests.Wording(ask, number % 2, number % len(phrases.CONSENTS), False, [], [], [])
            texts.append(" ".join(requests._sentences(meaning, wording, language, requests.ASKS)))
    return texts


@pytest.mark.parametrize("language", phrases.LANGUAGES)
def test_every_sentence_is_whole(language: str) -> None:
    for text in rendered(language):
        assert "{" not in text
        assert "  " not in text
        assert text[-1] in ".?!"
        assert all(part[0].isupper() or part[0] in "¿¡" for part in re.split(r"(?<=[.?!]) (?=\w|¿|¡)", text)), text


def test_italian_prepositions_merge_with_the_article() -> None:
    assert not any(re.search(r"\bdi (il|la|le|i|gli) mi", text) for text in rendered("it"))


def test_german_puts_the_infinitive_behind_its_object() -> None:
    verbs = "|".join(verb["de"] for verb in phrases.VERBS.values())
    for text in rendered("de"):
        question = re.split("[.?] ", text)[0]
        assert re.search(rf" ({verbs})( kann| können)?$", question), text


@pytest.mark.parametrize("language", phrases.LANGUAGES)
def test_a_verb_has_one_form_whether_asked_for_or_prevented(language: str) -> None:
    texts = rendered(language)
    for number, (thing, verb, *_) in enumerate(product(range(len(phrases.THINGS)), range(4), (0, 1), (0, 1))):
        name = (phrases.THINGS[thing].against + phrases.THINGS[thing].benefit)[verb]
        for text in texts[number * len(phrases.ASKS) : (number + 1) * len(phrases.ASKS)]:
            assert f" {phrases.VERBS[name][language]}" in text


def test_every_table_has_every_language_and_the_same_placeholders() -> None:
    tables = [phrases.PREVENTIONS, phrases.OPENINGS, phrases.CONTEXTS, phrases.CLOSINGS, phrases.ASKS]
    tables += [[consent.given, consent.refused] for consent in phrases.CONSENTS]
    tables += [[thing.theirs, thing.mine] for thing in phrases.THINGS]
    for phrase in (phrase for table in tables for phrase in table):
        assert tuple(phrase) == phrases.LANGUAGES
        for text in phrase.values():
            assert text == text.strip()
            assert text
            assert {field for _, field, _, _ in Formatter().parse(text) if field} <= {
                "who",
                "of",
                "do",
                "de",
                "zu",
                "rest",
            }
