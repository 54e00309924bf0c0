"""What a user may say: the config file as typed models.

These models are the only description of the config. The JSON schema and the key tables of config/README.md are written
from them (`python -m tessera.config`), and the workflow checks every config against them before it plans anything.
Nothing here opens a model or a dataset; what can only be known from those is checked by the stage that opens them.
"""

import json
import os
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from tessera.errors import UserError

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Pooling = Annotated[str, StringConstraints(pattern=r"^(sum|mean|max|last|top-[1-9][0-9]{0,3})$")]
Revision = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Layer = Annotated[int, Field(ge=0, le=1000)]

# Words that name a folder or a head of our own, so that no id can collide with them.
RESERVED_IDS = {"text", "all", "tokens", "progress"}


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# --- sources -------------------------------------------------------------------------------------------------------


class HubDataset(Entry):
    """A dataset on the Hugging Face Hub, pinned to a commit."""

    hub: str = Field(description="Repository, as `owner/name`.")
    revision: Revision = Field(
        description="Commit of the repository, all 40 hex digits, so that a rerun reads the same."
    )
    config: str | None = Field(None, description="Configuration (subset) name, where the repository has several.")
    splits: list[str] = Field(
        ["train"], min_length=1, description="Splits to read; they are concatenated in this order."
    )


class TableFile(Entry):
    """A table on disk: .csv, .tsv, .jsonl or .parquet, told by its ending."""

    file: str = Field(description="Path of the table, from the folder the command runs in.")


class SavedDataset(Entry):
    """A folder written by `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""

    saved: str = Field(description="Path of the folder.")


class ImageFolder(Entry):
    """A folder of images, one folder inside it per label."""

    images: str = Field(description="Path of the folder.")


class DemoDataset(Entry):
    """A dataset of the demo world, generated on the spot."""

    demo: Literal["docstrings", "requests"] = Field(
        description="`docstrings`: which library wrote this docstring. `requests`: is this request harmful, in five languages."
    )


class HubModel(Entry):
    """A model on the Hugging Face Hub, pinned to a commit."""

    hub: str = Field(description="Repository, as `owner/name`.")
    revision: Revision = Field(description="Commit of the repository, all 40 hex digits.")


class Folder(Entry):
    """A folder on disk."""

    folder: str = Field(description="Path of the folder, from the folder the command runs in.")


class DemoModel(Entry):
    """A language model of the demo world, trained on the spot."""

    demo: Literal["small", "large"] = Field(description="Which of the demo's models.")


class SaeRelease(Entry):
    """An SAE of sae-lens's directory of releases."""

    release: str = Field(
        description="Release name in sae-lens's directory, for example `gemma-scope-2b-pt-res-canonical`."
    )
    id: str = Field(description="SAE id within the release, for example `layer_12/width_16k/canonical`.")


class DemoSae(Entry):
    """An SAE trained on a demo model with sae-lens, on the spot."""

    demo: Literal["standard", "topk", "batchtopk", "jumprelu"] = Field(description="Architecture to train.")


class ControlSae(Entry):
    """Random features in place of an SAE's: as many of them, and in each token as many active ones."""

    control: Id = Field(description="Id of the SAE to match; model, layer, site and width are the same as there.")


def _source_key(value: Any) -> str | None:
    """The key that tells a source's kind: the first of the known ones that is there."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Entry) else ()
    return next((key for key in SOURCE_KEYS if key in keys), None)


SOURCE_KEYS = ("hub", "file", "saved", "images", "folder", "release", "demo", "control")

DatasetSource = Annotated[
    Annotated[HubDataset, Tag("hub")]
    | Annotated[TableFile, Tag("file")]
    | Annotated[SavedDataset, Tag("saved")]
    | Annotated[ImageFolder, Tag("images")]
    | Annotated[DemoDataset, Tag("demo")],
    Discriminator(_source_key),
]
ModelSource = Annotated[
    Annotated[HubModel, Tag("hub")] | Annotated[Folder, Tag("folder")] | Annotated[DemoModel, Tag("demo")],
    Discriminator(_source_key),
]
SaeSource = Annotated[
    Annotated[SaeRelease, Tag("release")]
    | Annotated[Folder, Tag("folder")]
    | Annotated[DemoSae, Tag("demo")]
    | Annotated[ControlSae, Tag("control")],
    Discriminator(_source_key),
]


# --- the main entries ----------------------------------------------------------------------------------------------


class Dataset(Entry):
    """A table of labelled examples."""

    source: DatasetSource = Field(description="Where it comes from.")
    text: str = Field("text", description="Column with the text. A folder of images has none.")
    label: str = Field("label", description="Column with the label.")
    id: str | None = Field(None, description="Column with a unique id; without one, the row number is the id.")
    subset: str | None = Field(None, description="Column with the part an example belongs to, such as its language.")
    split: str | None = Field(
        None, description="Column with the publisher's own split. Kept, and not used by the protocols."
    )
    group: str | None = Field(
        None, description="Column of examples that belong together, such as translations. They never straddle a split."
    )
    max_examples: int | None = Field(
        None, ge=10, description="Keep this many examples, drawn by seed, in proportion to label and subset."
    )
    title: str | None = Field(None, description="What to call it in figures and tables; its id otherwise.")


class Model(Entry):
    """A language model, how to run it, and which of its layers to read as hidden states."""

    source: ModelSource = Field(description="Where it comes from.")
    layers: list[Layer] = Field(
        default_factory=list, description="Layers whose output (resid_post) is kept as hidden states; 0 is the first."
    )
    token_layers: list[Layer] = Field(
        default_factory=list,
        description="Layers whose output is kept for every content token. Large: 4 bytes a number, tokens x hidden size.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision the model runs in.")
    encode: Literal["float32", "tf32"] = Field(
        "float32",
        description="Precision of the SAEs' products on a card. The share of features that flip is measured and recorded.",
    )
    attention: Literal["eager", "sdpa"] = Field(
        "eager", description="Attention implementation. Gemma 2 is right only with `eager`."
    )
    max_length: int = Field(
        512, ge=2, description="Longest text in tokens; what is beyond is cut, counted and recorded."
    )
    chat: bool = Field(
        False,
        description="Put each text into the tokenizer's chat template, as what the user says. Only the text is content.",
    )
    datasets: list[Id] | None = Field(None, description="Datasets this model reads; all of them where absent.")
    title: str | None = Field(None, description="What to call it in figures and tables; its id otherwise.")


class Sae(Entry):
    """A sparse autoencoder, and where in the model it reads. Layer, site and width are checked against the SAE itself."""

    source: SaeSource = Field(description="Where it comes from.")
    model: Id = Field(description="Id of the model it reads.")
    layer: Layer = Field(description="Layer it reads; 0 is the first.")
    site: Literal["resid_pre", "resid_post", "mlp_out", "attn_z"] = Field(
        "resid_post",
        description="What of the layer it reads: the residual stream before or after it, what its MLP adds, or the"
        " attention heads' outputs before they are mixed. Tables count the resid_pre of a layer as the layer before.",
    )
    width: int = Field(ge=2, description="Number of features.")


class Capture(Entry):
    """How a model is run over a dataset. Changing these keys reruns nothing: beyond float noise they leave the numbers."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to run; `auto` takes the best there is."
    )
    batch_tokens: int = Field(4096, ge=16, description="Tokens in a batch, padding included.")
    shard_tokens: int = Field(65536, ge=64, description="Tokens in a shard: what a killed job has to do again at most.")


class Strict(Entry):
    """The strict protocol: seeded, grouped splits; everything chosen by inner folds on the training part alone."""

    seeds: int = Field(5, ge=2, le=100, description="How many splits.")
    test_size: float = Field(
        0.2, gt=0, lt=1, description="Share of each label's examples that is held out in each split, in whole groups."
    )
    inner_folds: int = Field(3, ge=2, le=20, description="Folds of the training part that choose the configuration.")
    c: list[Annotated[float, Field(gt=0)]] = Field(
        [0.01, 0.1, 1.0, 10.0], min_length=1, description="Inverse regularisation strengths to choose from."
    )


class Regimes(Entry):
    """Harder conditions for the training part, under the strict protocol. The test part stays as it is."""

    train_shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, description="Shares of the training part to train on, in whole groups."
    )
    label_noise: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, description="Shares of the training labels to make wrong."
    )
    imbalance: list[Annotated[float, Field(gt=1)]] = Field(
        default_factory=list,
        description="How many times more frequent the most frequent label is to be than the rarest.",
    )
    shuffled: bool = Field(
        True, description="Also train on shuffled labels: a score above chance then shows a leak, not a feature."
    )


class Probes(Entry):
    """Which classifier inputs are compared, and how."""

    sae_poolings: list[Pooling] = Field(
        ["sum", "top-20", "last"],
        description="How an SAE's token features become one vector: sum, mean, max, last, top-N.",
    )
    thresholds: list[Annotated[float, Field(gt=0)] | None] = Field(
        [None, 1.0], min_length=1, description="Pooled SAE features at or above it count as 1; null keeps the values."
    )
    hidden_poolings: list[Literal["last", "mean", "max"]] = Field(
        ["last", "mean", "max"], description="How hidden states become one vector."
    )
    text: list[Literal["tfidf-word", "tfidf-char", "length", "majority"]] = Field(
        ["tfidf-word", "tfidf-char", "length", "majority"], description="Classifier inputs that need no model."
    )
    classifiers: list[Literal["l2", "l1", "tree", "means"]] = Field(
        ["l2"],
        min_length=1,
        description="What is fitted to SAE features and hidden states. `l2`: logistic regression. `l1`: one that leaves "
        "features out. `tree`: the published decision tree. `means`: along the difference of class means.",
    )
    l1_penalties: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.8, 0.5, 0.3, 0.2, 0.1],
        min_length=1,
        description="The path of `l1`, under the strict protocol: penalties as shares of the least one that leaves every "
        "feature out.",
    )
    sparse_k: list[Annotated[int, Field(ge=1, le=512)]] = Field(
        default_factory=list,
        description="Numbers of features for k-sparse probes of SAEs, and of principal components of hidden states.",
    )
    regimes: Regimes = Field(default_factory=Regimes, description="Harder conditions for the training part.")
    curve_poolings: list[Pooling] | None = Field(
        None,
        description="Poolings for which `sparse_k`, `regimes` and the path of `l1` are computed; all of them where absent.",
    )
    protocols: list[Literal["paper", "strict"]] = Field(
        ["paper", "strict"], min_length=1, description="`paper`: the published procedure. `strict`: the one to believe."
    )
    strict: Strict = Field(default_factory=Strict, description="Settings of the strict protocol.")


class DemoDocstrings(Entry):
    """The docstring task: which library wrote this paragraph, with the names of the libraries masked."""

    libraries: list[str] = Field(
        ["numpy", "scipy", "pandas", "sklearn", "matplotlib", "torch", "transformers", "networkx"],
        min_length=2,
        description="Installed packages to read; each is a class.",
    )
    per_library: int = Field(250, ge=10, description="Examples of each class.")


class DemoRequests(Entry):
    """The request task: harmful or not, the same meanings in five languages."""

    meanings: int = Field(240, ge=20, description="Different requests; each is rendered in every language.")


class DemoLanguageModel(Entry):
    """Shape and training of one of the demo's Gemma-2-type models."""

    hidden_size: int = Field(ge=16, multiple_of=8, description="Width of the residual stream.")
    layers: int = Field(ge=1, description="Number of layers.")
    steps: int = Field(ge=1, description="Training steps.")


def _demo_models() -> dict[Literal["small", "large"], DemoLanguageModel]:
    return {
        "small": DemoLanguageModel(hidden_size=64, layers=4, steps=300),
        "large": DemoLanguageModel(hidden_size=128, layers=6, steps=250),
    }


class Demo(Entry):
    """The demo world: real docstrings, generated requests, tiny models and SAEs trained on them."""

    docstrings: DemoDocstrings = Field(default_factory=DemoDocstrings, description="The docstring task.")
    requests: DemoRequests = Field(default_factory=DemoRequests, description="The request task.")
    vocabulary: int = Field(2000, ge=300, description="Size of the tokenizer's vocabulary.")
    models: dict[Literal["small", "large"], DemoLanguageModel] = Field(
        default_factory=_demo_models,
        description="The language models.",
    )
    sae_steps: int = Field(500, ge=1, description="Training steps of each SAE.")


class Config(Entry):
    """Everything a run depends on."""

    seed: int = Field(
        42, ge=0, description="Seed of the demo world and of `max_examples`. The protocols have their own."
    )
    datasets: dict[Id, Dataset] = Field(min_length=1, description="Tables of labelled examples, by id.")
    models: dict[Id, Model] = Field(default_factory=dict, description="Language models, by id.")
    saes: dict[Id, Sae] = Field(default_factory=dict, description="Sparse autoencoders, by id.")
    capture: Capture = Field(default_factory=Capture, description="How models are run.")
    probes: Probes = Field(default_factory=Probes, description="What is compared, and how.")
    demo: Demo = Field(default_factory=Demo, description="The demo world; matters only to `demo` sources.")

    @model_validator(mode="after")
    def check(self) -> "Config":
        problems = list(_problems(self))
        if problems:
            raise problems[0]
        return self


def _problems(config: Config) -> Iterator[UserError]:
    """What no single key shows: references, repeated entries, and shapes that are known without opening anything."""
    for section in ("datasets", "models", "saes"):
        for name in getattr(config, section):
            if name in RESERVED_IDS or (section == "saes" and re.fullmatch(r"layer-\d+(-tokens)?", name)):
                yield UserError(f"{section}.{name}", "this id is taken by the workflow itself", "choose another id")
    for name in config.models:
        yield from _model_problems(config, name)
    for name in config.saes:
        yield from _sae_problems(config, name)
    for key in (
        "sae_poolings",
        "thresholds",
        "hidden_poolings",
        "text",
        "classifiers",
        "l1_penalties",
        "sparse_k",
        "protocols",
    ):
        yield from _repeats(f"probes.{key}", getattr(config.probes, key))
    yield from _repeats("probes.strict.c", config.probes.strict.c)
    yield from _repeats("demo.docstrings.libraries", config.demo.docstrings.libraries)


def _model_problems(config: Config, name: str) -> Iterator[UserError]:
    model = config.models[name]
    yield from _repeats(f"models.{name}.layers", model.layers)
    yield from _repeats(f"models.{name}.token_layers", model.token_layers)
    for dataset in model.datasets or []:
        if dataset not in config.datasets:
            mend = f"use one of: {', '.join(config.datasets)}"
            yield UserError(f"models.{name}.datasets", f"there is no dataset '{dataset}'", mend)
    if isinstance(model.source, DemoModel) and model.source.demo not in config.demo.models:
        yield UserError(
            f"models.{name}.source.demo", f"demo.models has no '{model.source.demo}'", "add its shape there"
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
        yield from _control_problem(config, name, sae.source.control)
    if isinstance(sae.source, DemoSae) and not isinstance(config.models[sae.model].source, DemoModel):
        wrong = f"demo SAEs are trained on demo models, and '{sae.model}' is not one"
        yield UserError(f"saes.{name}.source.demo", wrong, "give a release or a folder")


def _control_problem(config: Config, name: str, matched: str) -> Iterator[UserError]:
    """A control that does not stand beside the SAE it is to match."""
    key = f"saes.{name}.source.control"
    other = config.saes.get(matched)
    if other is None or isinstance(other.source, ControlSae):
        wrong = f"'{matched}' is a control itself" if other else f"there is no SAE '{matched}'"
        yield UserError(key, wrong, "name an SAE that is none")
        return
    for what in ("model", "layer", "site", "width"):
        if getattr(config.saes[name], what) != getattr(other, what):
            mend = f"give both the same {what}"
            yield UserError(key, f"'{matched}' has another {what}, so there is nothing to match", mend)


def _layer_problem(config: Config, key: str, layer: int, model: str) -> Iterator[UserError]:
    """A layer beyond the depth of a demo model, which is known; that of other models shows when they are opened."""
    source = config.models[model].source
    if isinstance(source, DemoModel) and source.demo in config.demo.models:
        depth = config.demo.models[source.demo].layers
        if layer >= depth:
            yield UserError(key, f"layer {layer} is beyond the {depth} layers of '{model}'", f"use 0 to {depth - 1}")


def _repeats(key: str, values: list[Any]) -> Iterator[UserError]:
    for position, value in enumerate(values):
        if value in values[:position]:
            yield UserError(key, f"{value} is listed twice", "list it once")


# --- reading -------------------------------------------------------------------------------------------------------


def parse(raw: dict[str, Any]) -> Config:
    """The validated config, or a `UserError` about its first problem."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise _first_problem(error) from None


def _first_problem(error: ValidationError) -> UserError:
    """The first of pydantic's findings, as one line that names the key as the user wrote it."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part != "[key]"]
    if "source" in location:
        # After `source` pydantic puts the kind it took the source for, which is no key of the user's.
        del location[location.index("source") + 1 : location.index("source") + 2]
    wrong, mend = _in_words(first)
    return UserError(".".join(location) or "config", wrong, mend)


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
        "union_tag_not_found": (f"{given} names no kind of source", f"give one of the keys {', '.join(SOURCE_KEYS)}"),
        "union_tag_invalid": (
            f"'{context.get('tag')}' is not a kind of source here",
            f"give one of the keys {context.get('expected_tags')}",
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
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(str(path), f"not readable as YAML ({error})", "correct the file") from None
        if not isinstance(content, dict):
            raise UserError(str(path), "a config file holds a mapping of keys", "start from config/config.yaml")


# --- documentation -------------------------------------------------------------------------------------------------

SECTIONS: list[type[BaseModel]] = [
    Config,
    Dataset,
    Model,
    Sae,
    Capture,
    Probes,
    Strict,
    Demo,
    DemoDocstrings,
    DemoRequests,
    DemoLanguageModel,
]
SOURCES: list[type[BaseModel]] = [
    HubDataset,
    TableFile,
    SavedDataset,
    ImageFolder,
    DemoDataset,
    HubModel,
    Folder,
    DemoModel,
    SaeRelease,
    DemoSae,
]
BEGIN, END = "<!-- keys: written by python -m tessera.config -->", "<!-- end of keys -->"


def schema_json() -> str:
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def key_tables() -> str:
    """The reference of every key, as Markdown."""
    parts = []
    for entry in [*SECTIONS, *SOURCES]:
        parts.append(f"#### {entry.__name__}\n\n{(entry.__doc__ or '').strip()}\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|")
        for name, field in entry.model_fields.items():
            if field.is_required():
                default = "required"
            else:
                value = field.get_default(call_default_factory=True)
                default = (
                    "see below"
                    if isinstance(value, BaseModel) or (name == "models" and value)
                    else f"`{_plain(value)}`"
                )
            parts.append(f"| `{name}` | {_type_name(field.annotation)} | {default} | {field.description} |")
        parts.append("")
    return "\n".join(parts)


def _plain(value: Any) -> str:
    return json.dumps(value)


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type_name(arguments[1])}"
    if arguments:
        return " or ".join(_type_name(argument) for argument in arguments)
    plain = {str: "text", int: "whole number", float: "number", type(None): "null"}
    return plain.get(annotation) or f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def with_key_tables(readme: str) -> str:
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{key_tables()}\n{END}{tail}"


def main() -> None:
    """Rewrite config/schema.json and the key tables of config/README.md from the models."""
    folder = Path(os.environ.get("TESSERA_CONFIG_FOLDER", "config"))
    (folder / "schema.json").write_text(schema_json(), encoding="utf-8")
    readme = folder / "README.md"
    readme.write_text(with_key_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
