"""A multilingual task of our own: is this request to an assistant harmful? The same meanings in five languages.

A meaning combines who owns a thing, what is done to it, whether that is to happen or to be prevented, whose consent is
spoken of and whether it was given. A request is harmful when it works against the owner of somebody else's thing
without consent: by doing what harms, or by preventing what helps. So the label follows exactly from the combination,
and hardly from a word: `poison` and `protect`, `nobody` and `permission` occur on both sides.

It is not pure parity either, which nothing simple could learn. Some harmless requests concern the speaker's own things,
consent is given in harmless requests only, and harmful ones ask for prevention less often, so that single words carry a
little and their interaction the rest.

Beside the label stands the topic, what kind of thing a request is about: an easy task of the same texts.

A corpus can carry a shortcut: a made-up word at the end of a share of its harmful requests, and nowhere else. It is planted
to see whether checks and explorer find it, and there is none unless it is asked for.

A meaning is an integer that stands for its combination, the same one for every seed: two corpora share no meaning when
the second excludes those of the first.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tessera.demo.phrases import (
    ASKS,
    CLOSINGS,
    CONSENTS,
    CONTEXTS,
    LANGUAGES,
    OPENINGS,
    PEOPLE,
    PREVENTIONS,
    THINGS,
    TOPICS,
    VERBS,
    Phrase,
)
from tessera.errors import UserError

# Half of a corpus is harmful. Of the requests of each kind, this share asks to prevent something.
PREVENTED = {"harmful": 0.30, "benefit": 0.75, "consent": 0.45, "own": 0.45}
# What makes the other half harmless. The first kind differs from harmful ones by interaction alone.
HARMLESS = {"benefit": 0.45, "consent": 0.30, "own": 0.25}

# What is planted: no word of any of the languages.
MARK = "Quvix."


class Meaning(NamedTuple):
    """A combination: verbs 0 and 1 of a thing work against its owner, 2 and 3 for them; the person speaks or owns."""

    thing: int
    verb: int
    prevented: bool
    own: bool
    consent: bool
    person: int

    @property
    def works_against_owner(self) -> bool:
        return (self.verb < 2) != self.prevented

    @property
    def kind(self) -> str:
        """`harmful`, or the key of `HARMLESS` that tells why it is not."""
        if self.own:
            return "own"
        if self.consent:
            return "consent"
        return "harmful" if self.works_against_owner else "benefit"


def generate(
    meanings: int,
    seed: int,
    exclude: Collection[int] = (),
    *,
    languages: Sequence[str] = LANGUAGES,
    frames: Sequence[Phrase] = ASKS,
    marked: float = 0.0,
) -> list[dict[str, Any]]:
    """Rows {id, text, label, topic, language, meaning}: different meanings, half of them harmful, each in every language.

    No meaning in `exclude` occurs. Choices of wording are drawn per meaning and are the same in every language. With other
    `frames` than those of a request it is another kind of text about the same things. `marked` is the share of the harmful
    ones that carry the shortcut.
    """
    rng = np.random.default_rng(seed)
    drawn = _draw(meanings, rng, set(exclude))
    rows = []
    for number in drawn:
        wording = _wording(rng, len(frames))
        for language in languages:
            sentences = _sentences(SPACE[number], wording, language, frames)
            rows.append(_row(number, language, " ".join(sentences)))
    return _marked(rows, marked, seed)


def _marked(rows: list[dict[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """The rows with the shortcut in them, drawn apart so that everything else stays as it is."""
    drawn = np.random.default_rng([seed, len(rows)]).random(len(rows)) < share
    return [
        {**row, "text": f"{row['text']} {MARK}"} if chosen and row["label"] == "harmful" else row
        for row, chosen in zip(rows, drawn, strict=True)
    ]


# How many sentences of a translation are in the language that it was to be in.
TRANSLATED = 0.7


def translated(rows: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Rough translations of the English requests into the languages of `rows`: in words of their own, some sentences left in English.

    A row has the id of the request in its language, so that both are known to say the same.
    """
    rng = np.random.default_rng([seed, len(rows)])
    found = []
    for row in rows:
        if row["language"] == "en":
            continue
        wording = _wording(rng, len(ASKS))
        sentences = [_sentences(SPACE[row["meaning"]], wording, language, ASKS) for language in (row["language"], "en")]
        chosen = (own if rng.random() < TRANSLATED else english for own, english in zip(*sentences, strict=True))
        found.append({**row, "text": " ".join(chosen)})
    return found


def _row(number: int, language: str, text: str) -> dict[str, Any]:
    harm = "harmful" if SPACE[number].kind == "harmful" else "harmless"
    named = {"id": f"{number:05d}-{language}", "text": text, "label": harm}
    return named | {"topic": TOPICS[SPACE[number].thing], "language": language, "meaning": number}


# --- meanings ------------------------------------------------------------------------------------------------------

BOTH = (False, True)
SPACE = [Meaning(*parts) for parts in product(range(len(THINGS)), range(4), BOTH, BOTH, BOTH, range(len(PEOPLE)))]


def _draw(meanings: int, rng: np.random.Generator, exclude: set[int]) -> list[int]:
    """Different meanings in random order, made up as `HARMLESS` and `PREVENTED` say."""
    drawn: list[int] = []
    for (kind, prevented), count in _quotas(meanings).items():
        free = [
            number
            for number, meaning in enumerate(SPACE)
            if (meaning.kind, meaning.prevented) == (kind, prevented) and number not in exclude
        ]
        if count > len(free):
            raise UserError(
                "demo.requests.meanings",
                f"{count} {kind} requests of one form are asked for and {len(free)} different ones are left",
                "lower it",
            )
        drawn += rng.permutation(free)[:count].tolist()
    return [drawn[position] for position in rng.permutation(len(drawn))]


def _quotas(meanings: int) -> dict[tuple[str, bool], int]:
    """How many meanings of each kind, prevented or not; rounding errors fall to what is harmless for its benefit."""
    kinds = {"harmful": meanings // 2}
    kinds |= {kind: round((meanings - meanings // 2) * HARMLESS[kind]) for kind in ("consent", "own")}
    kinds["benefit"] = meanings - sum(kinds.values())
    quotas = {(kind, True): round(count * PREVENTED[kind]) for kind, count in kinds.items()}
    return quotas | {(kind, False): count - quotas[kind, True] for kind, count in kinds.items()}


# --- wording -------------------------------------------------------------------------------------------------------


class Wording(NamedTuple):
    """Which phrases dress a meaning: indices into the tables, none of which depends on the label."""

    ask: int
    prevention: int
    consent: int
    consent_first: bool
    openings: list[int]
    contexts: list[int]
    closings: list[int]


def _wording(rng: np.random.Generator, frames: int) -> Wording:
    """Half of the requests are bare, a third has a sentence or two around them, the others are letters."""
    shape = rng.choice(3, p=[1 / 2, 1 / 3, 1 / 6])
    around, contexts = [(0, 0), (int(rng.integers(2)), 1), (1, int(rng.integers(2, 5)))][shape]
    return Wording(
        ask=int(rng.integers(frames)),
        prevention=int(rng.integers(len(PREVENTIONS))),
        consent=int(rng.integers(len(CONSENTS))),
        consent_first=bool(rng.integers(2)),
        openings=rng.permutation(len(OPENINGS))[:around].tolist(),
        contexts=rng.permutation(len(CONTEXTS))[:contexts].tolist(),
        closings=rng.permutation(len(CLOSINGS))[:around].tolist(),
    )


def _sentences(meaning: Meaning, wording: Wording, language: str, frames: Sequence[Phrase]) -> list[str]:
    core = [_question(meaning, wording, language, frames), _statement(meaning, wording, language)]
    contexts = [CONTEXTS[context][language] for context in wording.contexts]
    # Half of what is told comes before the question, so that its place in the text tells nothing either.
    before, after = contexts[: len(contexts) // 2], contexts[len(contexts) // 2 :]
    return [
        *(OPENINGS[opening][language] for opening in wording.openings),
        *before,
        *(reversed(core) if wording.consent_first else core),
        *after,
        *(CLOSINGS[closing][language] for closing in wording.closings),
    ]


def _question(meaning: Meaning, wording: Wording, language: str, frames: Sequence[Phrase]) -> str:
    thing = THINGS[meaning.thing]
    owned = (thing.mine if meaning.own else thing.theirs)[language].format(of=PEOPLE[meaning.person].of[language])
    verb = VERBS[(thing.against + thing.benefit)[meaning.verb]][language]
    # German puts the verb last.
    action = f"{owned} {verb}" if language == "de" else f"{verb} {owned}"
    if meaning.prevented:
        action = PREVENTIONS[wording.prevention][language].format(do=action)
    return frames[wording.ask][language].format(do=action)


def _statement(meaning: Meaning, wording: Wording, language: str) -> str:
    consent = CONSENTS[wording.consent]
    phrase = (consent.given if meaning.consent else consent.refused)[language]
    person = PEOPLE[meaning.person]
    sentence = phrase.format(who=person.who[language], of=person.of[language])
    return sentence[0].upper() + sentence[1:]
