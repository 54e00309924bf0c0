"""The kinds of transfer whose cells are matrices of scores: what their sources, targets and ceilings are.

- `language`: subsets of one dataset. A source is a subset, or the translations that another dataset holds of it.
- `task`: datasets of the same labels. A source is a dataset, or all the others together.
- `model`: who reads a question (the input) against who answers it (the target); the ceiling is the answering model's own reading.
- `modality`: images, and texts that name what they show. On images themselves the ceiling is the vision tower's own features; for
  what was trained on the names alone it is the same input trained on images.
- `dictionary`: SAEs on the model they were trained on and on its sibling; the ceiling is the reader's own SAE.

A matrix is about rows of datasets, one dataset after the other. Nothing here knows where features lie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tessera import groups
from tessera.errors import UserError
from tessera.examples import Table
from tessera.transfer.arrangement import Arrangement, Source
from tessera.transfer.cells import Ceiling, Line

Array = npt.NDArray[Any]

RIGHT, WRONG = "right", "wrong"

NATIVE, TRANSFERRED, TRANSLATED = "native", "transferred", "translated"
IN_DOMAIN, LEAVE_ONE_OUT, ZERO_SHOT = "in-domain", "leave-one-out", "zero-shot"
OWN, OTHER, WORDS, OWN_SAE, SIBLINGS_SAE = "own", "other", "words", "own SAE", "sibling's SAE"
OTHERS = "all others"


@dataclass(frozen=True)
class Part:
    """Some rows of a dataset, in the order in which a matrix has them."""

    dataset: str
    rows: Array


@dataclass(frozen=True)
class Extra:
    """A classifier input that no model's heads give: its arm, the model it belongs to, and its features, a row a row."""

    arm: str
    model: str | None
    X: Array


def _named(cell: dict[str, Any]) -> dict[str, Any]:
    return cell


@dataclass(frozen=True)
class Plan:
    """One matrix: its rows of datasets, who trains and who is tested, and what its cells are held against.

    `named` gives a cell the names that people know its source, target and training by. `texts` are those of the rows, where
    plain text is an input.
    """

    parts: Sequence[Part]
    arrangement: Arrangement
    ceiling: Ceiling
    selections: Sequence[str] = ("none",)
    texts: Sequence[str] = ()
    extras: Sequence[Extra] = ()
    named: Callable[[dict[str, Any]], dict[str, Any]] = _named
    folder: str = ""


Tables = Mapping[str, Table]


def _rows(parts: Sequence[Part], tables: Tables, what: Callable[[Table], Any]) -> Array:
    """A column of all rows of a matrix."""
    return np.concatenate([np.asarray(what(tables[part.dataset]), dtype=object)[part.rows] for part in parts])


def _texts(parts: Sequence[Part], tables: Tables) -> list[str]:
    return [text for part in parts for text in np.asarray(tables[part.dataset].texts or [], object)[part.rows].tolist()]


def _all(dataset: str, tables: Tables) -> Part:
    return Part(dataset, np.arange(len(tables[dataset])))


def at_home(words: str, home: Callable[[str], str]) -> Ceiling:
    """The ceiling that is the same input trained at home on all there is; `home` gives the source that is a target's own."""
    return lambda line, target: (replace(line, source=home(target), share=1.0), words)


# --- languages -----------------------------------------------------------------------------------------------------


def language(settings: Mapping[str, Any], tables: Tables) -> list[Plan]:
    dataset, paired = settings["dataset"], settings["translations"]
    table = tables[dataset]
    parts = [_all(dataset, tables)]
    subsets = sorted(set(table.subsets.tolist()))
    subset, labels, group = (
        table.subsets.copy(),
        table.labels.copy(),
        table.groups.copy(),
    )
    translated = np.zeros(len(table), bool)
    if paired is not None:
        parts.append(_all(paired, tables))
        where = _originals(dataset, table, paired, tables[paired])
        subset, labels, group = (np.concatenate([column, column[where]]) for column in (subset, labels, group))
        translated = np.concatenate([translated, np.ones(len(where), bool)])
    targets = {name: (subset == name) & ~translated for name in subsets}
    sources = [
        Source(name, targets[name], {target: NATIVE if target == name else TRANSFERRED for target in subsets})
        for name in subsets
    ]
    if paired is not None:
        sources += [_translations(name, (subset == name) & translated, paired) for name in subsets]
    arrangement = Arrangement(
        labels,
        group,
        sources,
        targets,
        settings["folds"],
        settings["strict"]["inner_folds"],
        tuple(sorted([*settings["train_shares"], 1.0])),
    )
    plan = Plan(
        parts,
        arrangement,
        at_home("trained on the language itself", lambda target: target),
        settings["selections"],
        _texts(parts, tables),
        named=lambda cell: cell | {"source": cell["target"] if cell["training"] == TRANSLATED else cell["source"]},
    )
    return [plan]


def _translations(name: str, rows: Array, paired: str) -> Source:
    """The translations of a subset. The one that was translated from has none, which is no failure of the others."""
    problem = "" if rows.any() else f"'{paired}' has no translations of '{name}'"
    return Source(f"{name} in translation", rows, {name: TRANSLATED}, problem)


def _originals(dataset: str, table: Table, paired: str, translations: Table) -> Array:
    """For each translation the row of its original, which has its id, and the same label."""
    row_of = {name: row for row, name in enumerate(table.ids)}
    lost = [name for name in translations.ids if name not in row_of]
    if lost:
        wrong = f"{len(lost)} translations have ids that '{dataset}' lacks, such as '{lost[0]}'"
        raise UserError(f"datasets.{paired}.id", wrong, "give a translation the id of its original")
    where = np.array([row_of[name] for name in translations.ids], np.intp)
    wrong_label = np.flatnonzero(table.labels[where] != translations.labels)
    if len(wrong_label):
        name = translations.ids[int(wrong_label[0])]
        wrong = f"{len(wrong_label)} translations have another label than their original, such as '{name}'"
        raise UserError(f"datasets.{paired}.label", wrong, "give a translation the label of its original")
    return where


# --- tasks ---------------------------------------------------------------------------------------------------------


def task(settings: Mapping[str, Any], tables: Tables) -> list[Plan]:
    names: list[str] = settings["datasets"]
    parts = [_all(name, tables) for name in names]
    dataset = np.concatenate([np.full(len(tables[name]), place) for place, name in enumerate(names)])
    labels = np.concatenate([_common_labels(name, tables[name], settings["labels"].get(name, {})) for name in names])
    targets = {name: dataset == place for place, name in enumerate(names)}
    sources = [
        Source(name, targets[name], {target: IN_DOMAIN if target == name else TRANSFERRED for target in names})
        for name in names
    ]
    if len(names) > 2:
        sources += [Source(f"{OTHERS} than {name}", ~targets[name], {name: LEAVE_ONE_OUT}) for name in names]
    texts = _texts(parts, tables)
    arrangement = Arrangement(
        labels,
        _groups_across([tables[name] for name in names], texts),
        sources,
        targets,
        settings["folds"],
        settings["strict"]["inner_folds"],
    )
    plan = Plan(
        parts,
        arrangement,
        at_home("trained on the dataset itself", lambda target: target),
        texts=texts,
        named=lambda cell: cell | ({"source": OTHERS} if cell["training"] == LEAVE_ONE_OUT else {}),
    )
    return [plan]


def _common_labels(name: str, table: Table, words: Mapping[str, str]) -> Array:
    unknown = sorted(set(words) - set(table.labels.tolist()))
    if unknown:
        there = ", ".join(f"'{label}'" for label in sorted(set(table.labels.tolist()))[:10])
        raise UserError(f"transfers.*.labels.{name}", f"it has no label '{unknown[0]}'", f"use its labels: {there}")
    return np.array([words.get(label, label) for label in table.labels.tolist()], dtype=object)


def _groups_across(tables: Sequence[Table], texts: Sequence[str]) -> Array:
    """Groups over several datasets: those of each, joined where a text stands in two of them."""
    copies = groups.codes([groups.hashed(groups.reading(text)) for text in texts])
    own, base = [], 0
    for table in tables:
        own.append(table.groups + base)
        base += int(table.groups.max()) + 1
    return groups.grouped([copies, np.concatenate(own)])


# --- models --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Which questions of a dataset a model answered right, as labels; how sure it was of its answer, where that is known."""

    name: str
    dataset: str
    model: str | None
    rows: Array
    labels: Array
    confidence: Array | None = None


def asked(name: str, path: Path, dataset: str, model: str) -> Asked:
    """A behaviour as the suite has scored it; questions without a score are left out."""
    with pq.ParquetFile(path) as file:
        found = file.read(["right", "confidence"])
    right, confidence = found["right"].to_pylist(), found["confidence"].to_pylist()
    rows = np.array([row for row, value in enumerate(right) if value is not None], np.intp)
    labels = np.array([RIGHT if right[row] else WRONG for row in rows.tolist()], dtype=object)
    return Asked(name, dataset, model, rows, labels, np.array([confidence[row] for row in rows.tolist()], np.float32))


def published(dataset: str, model: str | None, table: Table) -> Asked:
    """A dataset whose labels say what a model did."""
    return Asked(dataset, dataset, model, np.arange(len(table)), table.labels)


def model(settings: Mapping[str, Any], tables: Tables, behaviours: Sequence[Asked]) -> list[Plan]:
    return [_of_behaviour(settings, tables, behaviour) for behaviour in behaviours]


def _of_behaviour(settings: Mapping[str, Any], tables: Tables, behaviour: Asked) -> Plan:
    part = Part(behaviour.dataset, behaviour.rows)
    everything = np.ones(len(behaviour.rows), bool)
    arrangement = Arrangement(
        behaviour.labels,
        tables[behaviour.dataset].groups[behaviour.rows],
        [Source("questions", everything, {behaviour.name: OTHER})],
        {behaviour.name: everything},
        settings["folds"],
        settings["strict"]["inner_folds"],
    )

    def ceiling(line: Line, target: str) -> tuple[Line, str] | None:
        if behaviour.model is None:
            return None
        own = replace(line, model=behaviour.model, head=None, layer=None, width=None)
        if line.arm in ("sae", "hidden"):
            return own, "the answering model's own features"
        return replace(own, arm="hidden", selection="none"), "the answering model's own hidden states"

    def named(cell: dict[str, Any]) -> dict[str, Any]:
        by = cell["model"]
        training = WORDS if by is None else OWN if by == behaviour.model else OTHER
        return cell | {"source": by or "text", "training": training}

    extras = []
    if behaviour.confidence is not None:
        extras.append(Extra("confidence", behaviour.model, behaviour.confidence[:, None]))
    texts = _texts([part], tables)
    return Plan([part], arrangement, ceiling, texts=texts, extras=extras, named=named, folder=behaviour.name)


# --- modalities ----------------------------------------------------------------------------------------------------


def modality(settings: Mapping[str, Any], tables: Tables, pixels: Array) -> list[Plan]:
    images, names = settings["images"], settings["names"]
    parts = [_all(images, tables), *([_all(names, tables)] if names else [])]
    shown = np.concatenate([np.full(len(part.rows), part.dataset == images) for part in parts])
    sources = [Source("images", shown, {"images": IN_DOMAIN})]
    if names:
        sources.append(Source("names", ~shown, {"images": ZERO_SHOT}))
    arrangement = Arrangement(
        _rows(parts, tables, lambda table: table.labels),
        _groups_side_by_side([tables[part.dataset] for part in parts]),
        sources,
        {"images": shown},
        settings["folds"],
        settings["strict"]["inner_folds"],
        equal=False,
    )

    def ceiling(line: Line, target: str) -> tuple[Line, str] | None:
        if line.source == "names":
            return replace(line, source="images"), "the same features, trained on images"
        tower = replace(line, arm="vision", model=settings["model"], head=None, layer=None, width=None)
        return tower, "the vision tower's own features"

    full = np.zeros((len(shown), pixels.shape[1]), np.float32)
    full[shown] = pixels
    return [Plan(parts, arrangement, ceiling, extras=[Extra("pixels", None, full)])]


def _groups_side_by_side(tables: Sequence[Table]) -> Array:
    """Groups of datasets that share nothing."""
    base = np.cumsum([0, *(int(table.groups.max()) + 1 for table in tables)])
    return np.concatenate([table.groups + start for table, start in zip(tables, base, strict=False)])


# --- dictionaries --------------------------------------------------------------------------------------------------


def dictionary(settings: Mapping[str, Any], tables: Tables) -> list[Plan]:
    dataset = settings["dataset"]
    part = _all(dataset, tables)
    everything = np.ones(len(part.rows), bool)
    home = dict(settings["of"]) | {borrowed: settings["of"][own] for own, borrowed in settings["pairs"]}
    own_of = _own_heads(settings)
    arrangement = Arrangement(
        tables[dataset].labels,
        tables[dataset].groups,
        [Source(dataset, everything, {dataset: OWN_SAE})],
        {dataset: everything},
        settings["folds"],
        settings["strict"]["inner_folds"],
    )

    def ceiling(line: Line, target: str) -> tuple[Line, str] | None:
        own = own_of.get(line.head or "")
        return (replace(line, head=own), "the reader's own SAE") if own else None

    def named(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["head"] is None:
            return cell
        where = home[cell["head"]]
        word = OWN_SAE if where == cell["model"] else SIBLINGS_SAE
        return cell | {"source": where, "target": cell["model"], "training": word}

    return [Plan([part], arrangement, ceiling, named=named)]


def _own_heads(settings: Mapping[str, Any]) -> dict[str, str]:
    """Each head -> the head of the SAE that its reader has of its own at the same layer and width."""
    inputs = {given["head"]: given for given in settings["inputs"]}
    borrowed = {there for _, there in settings["pairs"]}
    own = {
        (given["model"], given["layer"], given["width"]): head for head, given in inputs.items() if head not in borrowed
    }
    found = {head: own.get((given["model"], given["layer"], given["width"])) for head, given in inputs.items()}
    return {head: at for head, at in found.items() if at is not None}
