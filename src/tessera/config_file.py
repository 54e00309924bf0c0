"""From a config file to a config that can be run: what is wrong with it, in one line, before anything is planned.

`tessera.config` says what each key may be. Here a file is read, what pydantic finds is put into words, and what only several keys
together show is looked for: names that nothing has, things listed twice, a transfer that its datasets do not allow.
"""

import re
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from tessera.config import (
    RESERVED_IDS,
    SOURCE_KEYS,
    BorrowedSae,
    Config,
    ControlSae,
    DemoModel,
    DemoSae,
    DictionaryTransfer,
    Entry,
    HubDataset,
    LanguageTransfer,
    ModalityTransfer,
    ModelTransfer,
    TaskTransfer,
)
from tessera.errors import UserError

# --- reading -------------------------------------------------------------------------------------------------------


# More than any study needs, and little enough to look through. A few lines of aliases can stand for billions of values.
MOST_VALUES, DEEPEST, LARGEST = 100_000, 20, 2**63 - 1


def parse(raw: dict[str, Any]) -> Config:
    """The validated config, or a `UserError` about its first problem."""
    _check_values(raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise _first_problem(error) from None
    for problem in _problems(config):
        raise problem
    return config


def _check_values(raw: Any) -> None:
    """Refuse, wherever it stands, what YAML can write and no key of ours can mean."""
    looked_at = 0
    waiting: list[tuple[tuple[str, ...], Any]] = [((), raw)]
    while waiting:
        path, value = waiting.pop()
        looked_at += 1
        key = ".".join(path).strip() or "config"
        if looked_at > MOST_VALUES:
            raise UserError("config", f"it holds more than {MOST_VALUES} values", "write less, or fewer aliases")
        if len(path) > DEEPEST:
            raise UserError(key, f"it is nested more than {DEEPEST} deep", "write it flat")
        if isinstance(value, dict):
            for name, inner in value.items():
                _check_value(key, name)
                waiting.append(((*path, str(name)), inner))
        elif isinstance(value, list | tuple | set):
            waiting += [((*path, str(place)), inner) for place, inner in enumerate(value)]
        else:
            _check_value(key, value)


def _check_value(key: str, value: Any) -> None:
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(key, f"it holds a whole number beyond {LARGEST}", "write a smaller one")
    if isinstance(value, str) and (found := re.search(UNPRINTABLE, value)):
        raise UserError(key, f"it holds the character {found[0]!a}, which does not print", "remove it")


# Control characters but for white space, and halves of surrogate pairs: escapes can write them, and no page can show them.
UNPRINTABLE = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]"


def _first_problem(error: ValidationError) -> UserError:
    """The first of pydantic's findings, as one line that names the key as the user wrote it."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part != "[key]"]
    if "source" in location:
        # After `source` pydantic puts the kind it took the source for, which is no key of the user's.
        del location[location.index("source") + 1 : location.index("source") + 2]
    elif location and location[0] in ("behaviours", "transfers"):
        # Likewise behind their ids.
        del location[2:3]
    wrong, mend = _in_words(first)
    return UserError(".".join(location).strip() or "config", wrong, mend)


def _in_words(detail: Any) -> tuple[str, str]:
    """What is wrong and the mend, of one of pydantic's findings."""
    kind, context = detail["type"], detail.get("ctx", {})
    given = repr(detail["input"])
    given = given if len(given) <= 60 else given[:57] + "..."
    if kind == "string_pattern_mismatch" and "[key]" in detail["loc"]:
        return f"{given} is not an id", "use lower-case letters, digits and single hyphens"
    known = {
        "extra_forbidden": ("unknown key", "remove it, or see config/README.md for the keys there are"),
        "missing": ("this key is missing", "add it; config/README.md shows an example"),
        "union_tag_not_found": (f"{given} names no kind of source", f"give one of the keys {', '.join(SOURCE_KEYS)}")
        if "source" in detail["loc"]
        else (f"the key {context.get('discriminator')} is missing", "add it; config/README.md shows an example"),
        "union_tag_invalid": (
            f"'{context.get('tag')}' is not a kind of source here",
            f"give one of the keys {context.get('expected_tags')}",
        )
        if "source" in detail["loc"]
        else (
            f"there is no {context.get('discriminator')} '{context.get('tag')}'",
            f"use {context.get('expected_tags')}",
        ),
        "string_pattern_mismatch": (
            f"{given} does not have the form {context.get('pattern')}",
            "write it in that form",
        ),
        "literal_error": (f"{given} is not one of the choices", f"use {context.get('expected')}"),
    }
    message = detail["msg"][0].lower() + detail["msg"][1:]
    other = (f"{given} will not do: {message}", "correct the value; config/README.md describes the key")
    return known.get(kind, other)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML as everyone reads it, but a key given twice in one mapping is an error and not a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise UserError(
                        f"{key_node.start_mark.name}, line {line}",
                        f"the key '{key}' is given twice",
                        "keep one of them",
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def check_files(paths: list[Path]) -> None:
    """Refuse what merging config files would hide: unreadable YAML, no mapping at the top, a key given twice."""
    for path in paths:
        try:
            with path.open(encoding="utf-8") as handle:
                content = yaml.load(handle, _UniqueKeyLoader)  # noqa: S506 - a SafeLoader
        except FileNotFoundError:
            raise UserError(str(path), "there is no such config file", "check the path") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # What looks like a date or a number, and is none, is a ValueError.
            raise UserError(str(path), f"not readable as YAML ({error})", "correct the file") from None
        if not isinstance(content, dict):
            raise UserError(str(path), "a config file holds a mapping of keys", "start from config/config.yaml")


# --- what no single key shows --------------------------------------------------------------------------------------


def _problems(config: Config) -> Iterator[UserError]:
    """What no single key shows: references, repeated entries, and shapes that are known without opening anything."""
    for section in ("datasets", "models", "saes"):
        for name in getattr(config, section):
            if name in RESERVED_IDS or (section == "saes" and re.fullmatch(r"layer-\d+(-tokens)?", name)):
                yield UserError(f"{section}.{name}", "this id is taken by the workflow itself", "choose another id")
    for name in config.datasets:
        yield from _dataset_problems(config, name)
    for name in config.models:
        yield from _model_problems(config, name)
    for name in config.saes:
        yield from _sae_problems(config, name)
    yield from _reading_problems(config)
    for name in config.transfers:
        yield from _transfer_problems(config, name)
    for section, entry in (("probes", config.probes), ("probes.strict", config.probes.strict), *_named(config)):
        for key in type(entry).model_fields:
            value = getattr(entry, key)
            if isinstance(value, list):
                yield from _repeats(f"{section}.{key}", value)
    yield from _repeats("demo.docstrings.libraries", config.demo.docstrings.libraries)


def _named(config: Config) -> Iterator[tuple[str, Entry]]:
    """The entries whose lists name things that count once."""
    yield from ((f"transfers.{name}", entry) for name, entry in config.transfers.items())
    yield from ((f"datasets.{name}", entry) for name, entry in config.datasets.items())


def _known(key: str, name: str, what: str, there: Collection[str]) -> Iterator[UserError]:
    """A name that the config uses and does not define."""
    if name not in there:
        yield UserError(key, f"there is no {what} '{name}'", f"use one of: {', '.join(there) or 'none yet'}")


def _reading_problems(config: Config) -> Iterator[UserError]:
    """Datasets that are to be probed or asked, and cannot be."""
    for name in config.probes.datasets or []:
        yield from _known("probes.datasets", name, "dataset", config.datasets)
        if name in config.datasets and config.datasets[name].label is None:
            yield UserError("probes.datasets", f"'{name}' has no labels", "leave it out")
    for name in config.probes.alone:
        yield from _alone_problems(config, name)
    for name in config.probes.models or []:
        yield from _known("probes.models", name, "model", config.models)
    for name, model in config.models.items():
        for dataset in model.datasets or []:
            if dataset in config.datasets and config.datasets[dataset].holds_images and not model.images:
                mend = "set images: true if it is a vision-language model, or leave the dataset out"
                yield UserError(f"models.{name}.datasets", f"'{dataset}' holds images", mend)
    for name, behaviour in config.behaviours.items():
        key = f"behaviours.{name}"
        if name in config.datasets:
            yield UserError(key, "a dataset has this id, too", "choose another id")
        yield from _known(f"{key}.dataset", behaviour.dataset, "dataset", config.datasets)
        yield from _known(f"{key}.model", behaviour.model, "model", config.models)
        if behaviour.dataset in config.datasets and config.datasets[behaviour.dataset].holds_images:
            yield UserError(f"{key}.dataset", f"'{behaviour.dataset}' holds images", "name one with texts")


def _alone_problems(config: Config, name: str) -> Iterator[UserError]:
    yield from _known("probes.alone", name, "dataset", config.datasets)
    if name in config.datasets:
        if config.probes.datasets is not None and name not in config.probes.datasets:
            yield UserError("probes.alone", f"'{name}' is not probed", "add it to probes.datasets")
        if config.datasets[name].label is None:
            yield UserError("probes.alone", f"'{name}' has no labels", "leave it out")
        if not config.datasets[name].has_subsets:
            yield UserError("probes.alone", f"'{name}' has no subsets", "name their column in datasets.*.subset")


def _transfer_problems(config: Config, name: str) -> Iterator[UserError]:
    entry, key = config.transfers[name], f"transfers.{name}"
    for sae in entry.saes or []:
        yield from _known(f"{key}.saes", sae, "SAE", config.saes)
    models, datasets = config.models_of(name), config.datasets_of(name)
    for model in models:
        yield from _known(f"{key}.model", model, "model", config.models)
    for dataset in datasets:
        yield from _known(f"{key}.dataset", dataset, "dataset", config.datasets)
    if isinstance(entry, ModelTransfer):
        yield from _behaviour_problems(config, key, entry)
    if not (set(models) <= set(config.models) and set(datasets) <= set(config.datasets)):
        return
    for model in models:
        for dataset in datasets:
            if not config.reads(model, dataset):
                wrong = f"'{model}' does not read '{dataset}'"
                yield UserError(key, wrong, f"add it to models.{model}.datasets")
    yield from _kind_problems(config, key, name)


def _behaviour_problems(config: Config, key: str, entry: ModelTransfer) -> Iterator[UserError]:
    for behaviour in entry.behaviours:
        yield from _known(f"{key}.behaviours", behaviour, "behaviour", config.behaviours)
    for dataset, answering in entry.published.items():
        if answering is not None:
            yield from _known(f"{key}.published.{dataset}", answering, "model", config.models)
    if not entry.behaviours and not entry.published:
        yield UserError(key, "there is no behaviour to predict", "give behaviours or published")


def _kind_problems(config: Config, key: str, name: str) -> Iterator[UserError]:
    """What one kind of transfer needs of its datasets."""
    entry = config.transfers[name]
    if isinstance(entry, LanguageTransfer) and not config.datasets[entry.dataset].has_subsets:
        yield UserError(f"{key}.dataset", f"'{entry.dataset}' has no subsets", "name their column in datasets.*.subset")
    if isinstance(entry, TaskTransfer):
        for dataset in entry.labels:
            yield from _known(f"{key}.labels", dataset, "dataset of this transfer", entry.datasets)
    if isinstance(entry, ModalityTransfer):
        if not config.models[entry.model].images:
            yield UserError(f"{key}.model", f"'{entry.model}' reads no images", "set models.*.images")
        if not config.datasets[entry.images].holds_images:
            yield UserError(f"{key}.images", f"'{entry.images}' holds texts", "name a dataset of images")
        if entry.names is not None and config.datasets[entry.names].holds_images:
            yield UserError(f"{key}.names", f"'{entry.names}' holds images", "name a dataset of texts")
    elif any(config.datasets[dataset].holds_images for dataset in config.datasets_of(name)):
        yield UserError(key, "one of its datasets holds images", "use kind: modality for those")
    if isinstance(entry, DictionaryTransfer) and not any(config.borrowed_between(entry.models)):
        first, second = entry.models
        wrong = f"no SAE of '{first}' or '{second}' is read on the other"
        yield UserError(f"{key}.models", wrong, "add one to saes with source: {borrowed: ID}")
    needed = [] if isinstance(entry, ModelTransfer) else config.datasets_of(name)
    for dataset in needed:
        if config.datasets[dataset].label is None:
            yield UserError(key, f"'{dataset}' has no labels", "name their column in datasets.*.label")


def _dataset_problems(config: Config, name: str) -> Iterator[UserError]:
    """Parts of a dataset of the Hub that are named twice, or not at all."""
    dataset, key = config.datasets[name], f"datasets.{name}.source"
    if not isinstance(dataset.source, HubDataset):
        return
    source = dataset.source
    yield from _repeats(f"{key}.splits", source.splits)
    yield from _repeats(f"{key}.configs", source.configs or [])
    if source.config is not None and source.configs is not None:
        yield UserError(f"{key}.configs", "config is given, too", "keep one of them")
    if source.subset == "config" and source.configs is None:
        yield UserError(f"{key}.subset", "there are no configs to take it from", "list them in configs")
    if source.subset is not None and dataset.subset is not None:
        wrong = f"the subset is the column '{dataset.subset}' already"
        yield UserError(f"{key}.subset", wrong, "keep one of them")


def _model_problems(config: Config, name: str) -> Iterator[UserError]:
    model = config.models[name]
    yield from _repeats(f"models.{name}.layers", model.layers)
    yield from _repeats(f"models.{name}.token_layers", model.token_layers)
    for dataset in model.datasets or []:
        if dataset not in config.datasets:
            mend = f"use one of: {', '.join(config.datasets)}"
            yield UserError(f"models.{name}.datasets", f"there is no dataset '{dataset}'", mend)
    if isinstance(model.source, DemoModel) and _shape_of(model.source.demo) not in config.demo.models:
        yield UserError(
            f"models.{name}.source.demo", f"demo.models has no '{_shape_of(model.source.demo)}'", "add its shape there"
        )
    for key, layers in (("layers", model.layers), ("token_layers", model.token_layers)):
        for layer in layers:
            yield from _layer_problem(config, f"models.{name}.{key}", layer, name)


def _sae_problems(config: Config, name: str) -> Iterator[UserError]:
    sae = config.saes[name]
    if sae.model not in config.models:
        known = ", ".join(config.models) or "none yet"
        yield UserError(f"saes.{name}.model", f"there is no model '{sae.model}'", f"use one of: {known}")
        return
    yield from _layer_problem(config, f"saes.{name}.layer", sae.layer, sae.model)
    if isinstance(sae.source, ControlSae):
        yield from _beside_problem(config, name, "control", sae.source.control, ("model", "layer", "site", "width"))
    if isinstance(sae.source, BorrowedSae):
        yield from _beside_problem(config, name, "borrowed", sae.source.borrowed, ("layer", "site", "width"))
    if isinstance(sae.source, DemoSae) and not isinstance(config.models[sae.model].source, DemoModel):
        wrong = f"demo SAEs are trained on demo models, and '{sae.model}' is not one"
        yield UserError(f"saes.{name}.source.demo", wrong, "give a release or a folder")


def _beside_problem(
    config: Config, name: str, kind: str, other_name: str, same: tuple[str, ...]
) -> Iterator[UserError]:
    """A control or a borrowed SAE that does not stand beside the SAE it is made from."""
    key = f"saes.{name}.source.{kind}"
    other = config.saes.get(other_name)
    if other is None:
        yield UserError(key, f"there is no SAE '{other_name}'", "name an SAE that is none")
        return
    if isinstance(other.source, ControlSae | BorrowedSae):
        what = "a control" if isinstance(other.source, ControlSae) else "borrowed"
        yield UserError(key, f"'{other_name}' is {what} itself", "name an SAE that is none")
        return
    for what in same:
        if getattr(config.saes[name], what) != getattr(other, what):
            mend = f"give both the same {what}"
            yield UserError(key, f"'{other_name}' has another {what}, so there is nothing to match", mend)


def _layer_problem(config: Config, key: str, layer: int, model: str) -> Iterator[UserError]:
    """A layer beyond the depth of a demo model, which is known; that of other models shows when they are opened."""
    source = config.models[model].source
    if isinstance(source, DemoModel) and (shape := _shape_of(source.demo)) in config.demo.models:
        depth = config.demo.models[shape].layers
        if layer >= depth:
            yield UserError(key, f"layer {layer} is beyond the {depth} layers of '{model}'", f"use 0 to {depth - 1}")


def _shape_of(demo: str) -> Literal["small", "large"]:
    """The entry of `demo.models` that a model of the demo is made with."""
    return "small" if demo == "small" else "large"


def _repeats(key: str, values: list[Any]) -> Iterator[UserError]:
    for position, value in enumerate(values):
        if value in values[:position]:
            yield UserError(key, f"{value} is listed twice", "list it once")
