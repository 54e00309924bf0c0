"""A quiz for the demo's models: which of two options completes this? In five languages, easy questions and hard ones.

Half of the questions break off one of the stock sentences that requests are dressed with, and the other option is the end of
another one: a model that has read requests knows most of these. The other half ask what is done to what: which thing goes
with a verb, or in German, where the verb comes last, which verb with a thing. That takes knowledge that hardly shows in
next-token prediction, so a model does little better than chance unless it has practised; `lessons` are for that, with
other questions. So whether a model is right depends on the question, on its form first of all, and on what the model is.

The instruction is one word before what is to be completed, so that the prompt ends where the answer begins: models that have
never seen an instruction can be asked, too. Of two options each is the right one equally often, and so is the longer one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tessera.demo.phrases import ASKS, CLOSINGS, CONTEXTS, LANGUAGES, OPENINGS, PEOPLE, THINGS, VERBS
from tessera.errors import UserError

INSTRUCTION = {"en": "Complete:", "es": "Completa:", "de": "Ergänze:", "fr": "Complète :", "it": "Completa:"}
FORMS = ("sentence", "fit")
SENTENCES = [*OPENINGS, *CONTEXTS, *CLOSINGS]
# Words that a stock sentence has at least on either side of where it breaks off.
LEAST_WORDS = 2

# Of the texts to tune on, lessons and others. The others keep what a model knows from being unlearned.
LESSONS, REHEARSED = 2_000, 800


class Stem(NamedTuple):
    """What is to be completed, and how. `wrong` are completions of others, `about` is the same in every language."""

    form: str
    language: str
    text: str
    right: str
    wrong: list[str]
    about: str

    @property
    def prompt(self) -> str:
        return f"{INSTRUCTION[self.language]} {self.text}"


def generate(questions: int, seed: int) -> list[dict[str, Any]]:
    """Rows {id, text, option_a, option_b, answer, language, form, group}, as many of each form and language as of others.

    The answer is the text of the right option. Questions about the same thing are of one group, whatever their language.
    """
    rng = np.random.default_rng(seed)
    kinds = [(form, language) for form in FORMS for language in LANGUAGES]
    rows: list[dict[str, Any]] = []
    for position, (form, language) in enumerate(kinds):
        count = questions * (position + 1) // len(kinds) - questions * position // len(kinds)
        stems = _stems(form, language)
        asked: set[str] = set()
        for drawn in rng.permutation(len(stems)):
            if len(asked) == count:
                break
            stem, k = stems[drawn], len(rows)
            # Every other right option is the longer one, and of these, every other comes first.
            wrong = _drawn(stem, k % 2 == 0, rng)
            if wrong is None or stem.text in asked:
                continue
            options = [stem.right, wrong] if k // 2 % 2 == 0 else [wrong, stem.right]
            rows.append(
                {
                    "id": f"{form}-{language}-{len(asked):03d}",
                    "text": stem.prompt,
                    "option_a": options[0],
                    "option_b": options[1],
                    "answer": stem.right,
                    "language": language,
                    "form": form,
                    "group": f"{form}-{stem.about}",
                }
            )
            asked.add(stem.text)
        if len(asked) < count:
            few = f"{count} questions of the form '{form}' in {language} are asked for, and there are {len(asked)}"
            raise UserError("demo.questions", few, "lower it")
    return rows


def lessons(quiz: Sequence[dict[str, Any]], prose: Sequence[str], seed: int) -> list[str]:
    """Texts to tune on: what goes with what, asked and answered, without any question of the quiz; and some of the prose."""
    rng = np.random.default_rng(seed)
    asked = {row["text"] for row in quiz}
    stems = [stem for language in LANGUAGES for stem in _stems("fit", language) if stem.prompt not in asked]
    texts = [f"{stems[drawn].prompt} {stems[drawn].right}" for drawn in rng.permutation(len(stems))[:LESSONS]]
    texts += [prose[drawn] for drawn in rng.permutation(len(prose))[:REHEARSED]]
    return [texts[drawn] for drawn in rng.permutation(len(texts))]


def _drawn(stem: Stem, shorter: bool, rng: np.random.Generator) -> str | None:
    """A wrong option that is shorter than the right one, or longer, if there is one."""
    options = [
        wrong for wrong in stem.wrong if len(wrong) != len(stem.right) and (len(wrong) < len(stem.right)) == shorter
    ]
    return options[int(rng.integers(len(options)))] if options else None


# --- what can be asked ---------------------------------------------------------------------------------------------


def _stems(form: str, language: str) -> list[Stem]:
    """All that can be asked; a verb goes with more than one thing, and a thing with more than one verb."""
    return list(_sentences(language) if form == "sentence" else _fits(language))


def _sentences(language: str) -> Iterator[Stem]:
    halves = [
        (number, " ".join(words[:cut]), " ".join(words[cut:]))
        for number, words in enumerate(sentence[language].split() for sentence in SENTENCES)
        for cut in range(LEAST_WORDS, len(words) - LEAST_WORDS + 1)
    ]
    for number, start, end in halves:
        wrong = [other_end for other, _, other_end in halves if other != number]
        yield Stem("sentence", language, start, end, wrong, str(number))


def _fits(language: str) -> Iterator[Stem]:
    """A verb and the thing that it goes with; in German the other way round."""
    # What goes with what is told by words, because two verbs may have one word in some language.
    words = [{VERBS[verb][language] for verb in thing.against + thing.benefit} for thing in THINGS]
    verbs = sorted(set().union(*words))
    owners = [*(person.of[language] for person in PEOPLE), None]
    for number, thing in enumerate(THINGS):
        for verb in thing.against + thing.benefit:
            word = VERBS[verb][language]
            for owner in owners:
                named = [(other.mine if owner is None else other.theirs)[language].format(of=owner) for other in THINGS]
                for ask in ASKS:
                    start = ask[language].partition("{do}")[0]
                    about = f"{number}-{verb}"
                    if language == "de":
                        wrong = [other for other in verbs if other not in words[number]]
                        yield Stem("fit", language, start + named[number], word, wrong, about)
                    else:
                        wrong = [name for name, fitting in zip(named, words, strict=True) if word not in fitting]
                        yield Stem("fit", language, start + word, named[number], wrong, about)
