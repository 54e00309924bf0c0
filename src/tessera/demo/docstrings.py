"""English prose that every installation already holds: the docstrings of the packages it runs on.

The task is to tell which library a paragraph comes from. Source files are found through the import system but never
imported: `ast` reads them, so no code of theirs runs and the order of reading is ours. A paragraph counts when it opens
a docstring, is prose of 30 to 400 characters, and occurs in one library only; tests and vendored copies of other
packages are left out, because their text would carry the wrong label.

A library's name would give the label away, so names and aliases of all the libraries are masked by one neutral token,
wherever they stand: alone, in a dotted name, or inside an identifier.
"""

import ast
import importlib.metadata
import importlib.util
import logging
import os
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tessera.errors import UserError

logger = logging.getLogger("tessera")

MASK = "LIB"
SHORTEST, LONGEST = 30, 400

Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

# What people call a library beside the name it is imported by.
ALIASES = {
    "jax": ["jnp"],
    "matplotlib": ["mpl", "plt", "pyplot", "pylab"],
    "networkx": ["nx"],
    "numpy": ["np"],
    "pandas": ["pd"],
    "polars": ["pl"],
    "seaborn": ["sns"],
    "sklearn": ["scikit-learn", "scikits-learn", "scikit"],
    "statsmodels": ["sm"],
    "tensorflow": ["tf"],
    "torch": ["pytorch", "libtorch"],
    "transformers": ["huggingface", "hugging-face", "hf"],
}

# Folders whose text is not the library's own, or not documentation.
SKIPPED_FOLDERS = {
    "__pycache__",
    "_vendor",
    "_vendored",
    "array_api_compat",
    "array_api_extra",
    "extern",
    "externals",
    "site-packages",
    "test",
    "testing",
    "tests",
    "third_party",
    "vendor",
    "vendored",
}
SKIPPED_FILES = re.compile(r"(test_.*|.*_test|conftest|setup)\.py")


def collect(
    libraries: Sequence[str], per_library: int, seed: int, prose: int = 6_000
) -> tuple[list[dict[str, str]], list[str]]:
    """The task, `per_library` rows {id, text, label} a library, and at most `prose` other paragraphs.

    The two share no paragraph, so that what is trained on the prose has not seen the task.
    """
    # Twice the task leaves room for paragraphs that turn out to be shared between libraries.
    found = paragraphs(libraries, limit=2 * per_library + -(-prose // len(libraries)), seed=seed)
    task, rest = [], []
    for library, texts in found.items():
        if len(texts) < per_library:
            raise UserError(
                "demo.docstrings.per_library",
                f"{library} has {len(texts)} usable paragraphs, {per_library} are asked for",
                f"lower it, or leave {library} out of demo.docstrings.libraries",
            )
        task += [
            {"id": f"{library}-{number:04d}", "text": text, "label": library}
            for number, text in enumerate(texts[:per_library])
        ]
        rest += texts[per_library:]
    order = np.random.default_rng([seed, len(libraries)]).permutation(len(rest))
    return task, [rest[position] for position in order[:prose]]


def paragraphs(libraries: Sequence[str], limit: int, seed: int) -> dict[str, list[str]]:
    """For each library its masked paragraphs in an order drawn by seed; a text found in two libraries is in neither.

    Reading a library stops after the file that brings it to `limit` different paragraphs.
    """
    mask = masker(libraries)
    found = {
        library: _from_one(library, mask, limit, np.random.default_rng([seed, position]))
        for position, library in enumerate(libraries)
    }
    owners = Counter(key for texts in found.values() for key in texts)
    return {library: [text for key, text in texts.items() if owners[key] == 1] for library, texts in found.items()}


def versions(libraries: Sequence[str]) -> dict[str, str | None]:
    """The installed version of each library: what the texts depend on. None for a module outside any distribution."""
    distributions = importlib.metadata.packages_distributions()
    return {
        library: importlib.metadata.version(distributions[library][0]) if library in distributions else None
        for library in libraries
    }


def masker(libraries: Sequence[str]) -> re.Pattern[str]:
    """What matches every name of the libraries, whatever its case.

    Long names match inside words, so that `TorchScript` and `is_numpy_array` tell nothing. A short one, such as `np`,
    would hit ordinary words: it has to begin a word and to end where the word or its case does.
    """
    distributions = importlib.metadata.packages_distributions()
    names = {
        name.lower()
        for library in libraries
        for name in [library, *ALIASES.get(library, []), *distributions.get(library, [])]
    }
    patterns = []
    for name in sorted(names, key=lambda name: (-len(name), name)):
        spelling = "[-_. ]?".join(re.escape(part) for part in re.split("[-_.]", name))
        patterns.append(f"(?i:{spelling})" if len(name) >= 5 else f"(?<![A-Za-z])(?i:{spelling})(?![a-z])")
    return re.compile("|".join(patterns))


def normalised(text: str) -> str:
    """The text by which duplicates are told: letters and digits only, one case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _from_one(library: str, mask: re.Pattern[str], limit: int, rng: np.random.Generator) -> dict[str, str]:
    """Normalised text -> text, in drawn order."""
    files = _sources(library)
    found: dict[str, str] = {}
    for position in rng.permutation(len(files)):
        for paragraph in _paragraphs_of(files[position]):
            text = mask.sub(MASK, paragraph)
            found.setdefault(normalised(text), text)
        if len(found) >= limit:
            break
    keys = sorted(found)
    return {keys[position]: found[keys[position]] for position in rng.permutation(len(keys))}


def _sources(library: str) -> list[Path]:
    """The library's Python files, sorted by path, found without importing anything."""
    # For a dotted name the import system would import the parent.
    spec = importlib.util.find_spec(library) if library.isidentifier() else None
    if spec is None:
        raise UserError(
            "demo.docstrings.libraries",
            f"'{library}' is not an installed package",
            "install it, or name packages as they are imported",
        )
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
    files = []
    for location in sorted(spec.submodule_search_locations):
        for folder, inner, names in os.walk(location):
            inner[:] = sorted(set(inner) - SKIPPED_FOLDERS)
            files += [
                Path(folder, name)
                for name in sorted(names)
                if name.endswith(".py") and not SKIPPED_FILES.fullmatch(name)
            ]
    return files


def _paragraphs_of(path: Path) -> Iterator[str]:
    try:
        with tokenize.open(path) as handle:
            tree = ast.parse(handle.read())
    except (SyntaxError, UnicodeDecodeError) as error:
        # Packages ship templates and sources for other interpreters under the same ending.
        logger.info("%s is not Python for this interpreter (%s); left out", path, error)
        return
    for node in _documented(tree):
        paragraph = first_paragraph(ast.get_docstring(node) or "")
        if SHORTEST <= len(paragraph) <= LONGEST:
            yield paragraph


def _documented(tree: ast.Module) -> Iterator[Documented]:
    """Every node that may hold a docstring. Only statements are visited: most of a tree is expressions, without any."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Documented):
            yield node
        for block in ("body", "handlers", "orelse", "finalbody", "cases"):
            inside = getattr(node, block, None)
            if isinstance(inside, list):
                waiting += inside


def first_paragraph(docstring: str) -> str:
    """The opening paragraph on one line; empty where the docstring opens with code, a directive or a table."""
    paragraph = " ".join(re.split(r"\n\s*\n", docstring, maxsplit=1)[0].split())
    return paragraph if re.match(r"[\w`*\"'(\[{]", paragraph) else ""
