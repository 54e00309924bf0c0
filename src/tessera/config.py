"""What a user may say: the config file as typed models.

These models are the only description of the config. The JSON schema and the key tables of config/README.md are written
from them (`python -m tessera.config`), and the workflow checks every config against them before it plans anything.
Nothing here opens a model or a dataset; what can only be known from those is checked by the stage that opens them. What no single
key shows is checked by `tessera.config_file`, which reads a user's file.
"""

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Pooling = Annotated[str, StringConstraints(pattern=r"^(sum|mean|max|last|top-[1-9][0-9]{0,3})$")]
Revision = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|unpinned)$")]
Layer = Annotated[int, Field(ge=0, le=1000)]
LocalPath = Annotated[str, StringConstraints(min_length=1)]
# Longer ones leave no room for what a figure shows.
Title = Annotated[str, StringConstraints(max_length=200)]

# Stands for a commit that nobody has looked up yet. Such a config can be planned; `python -m tessera.pins` fills it in.
UNPINNED = "unpinned"

# Words that name a folder or a head of our own, so that no id can collide with them.
RESERVED_IDS = {"text", "all", "tokens", "progress", "vision"}


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# --- sources -------------------------------------------------------------------------------------------------------


class HubDataset(Entry):
    """A dataset on the Hugging Face Hub, pinned to a commit."""

    hub: str = Field(description="Repository, as `owner/name`.")
    revision: Revision = Field(
        description="Commit of the repository, all 40 hex digits, so that a rerun reads the same; or `unpinned`, until "
        "`python -m tessera.pins` fills it in."
    )
    config: str | None = Field(None, description="Configuration (subset) name, where the repository has several.")
    configs: list[str] | None = Field(
        None, min_length=1, description="Configurations to read as one dataset, in this order, instead of one `config`."
    )
    splits: list[str] = Field(
        ["train"], min_length=1, description="Splits to read; they are concatenated in this order."
    )
    subset: Literal["split", "config"] | None = Field(
        None,
        description="What is the subset of an example where no column says it: the name of its split, or of its configuration.",
    )


class TableFile(Entry):
    """A table on disk: .csv, .tsv, .jsonl or .parquet, told by its ending."""

    file: LocalPath = Field(description="Path of the table, from the folder the command runs in.")


class SavedDataset(Entry):
    """A folder written by `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""

    saved: LocalPath = Field(description="Path of the folder.")


class ImageFolder(Entry):
    """A folder of images, one folder inside it per label."""

    images: LocalPath = Field(description="Path of the folder.")


class DemoDataset(Entry):
    """A dataset of the demo world, generated on the spot."""

    demo: Literal["docstrings", "requests", "translations", "plans", "diaries", "quiz", "digits", "digit-names"] = (
        Field(
            description="`docstrings`: which library wrote this docstring. `requests`: is this request harmful, in five languages; "
            "`translations`: the English ones, roughly translated. `plans` and `diaries`: the same question of other kinds of text. "
            "`quiz`: questions with two options. `digits`: images of digits; `digit-names`: what they are called."
        )
    )


class HubModel(Entry):
    """A model on the Hugging Face Hub, pinned to a commit."""

    hub: str = Field(description="Repository, as `owner/name`.")
    revision: Revision = Field(description="Commit of the repository, all 40 hex digits; or `unpinned`.")


class Folder(Entry):
    """A folder on disk."""

    folder: LocalPath = Field(description="Path of the folder, from the folder the command runs in.")


class DemoModel(Entry):
    """A language model of the demo world, trained on the spot."""

    demo: Literal["small", "large", "tuned", "vision"] = Field(
        description="Which of the demo's models. `tuned`: the large one, tuned to answer questions. `vision`: the large one, "
        "unchanged, behind a small vision tower."
    )


class SaeRelease(Entry):
    """An SAE of sae-lens's directory of releases."""

    release: str = Field(
        description="Release name in sae-lens's directory, for example `gemma-scope-2b-pt-res-canonical`."
    )
    id: str = Field(description="SAE id within the release, for example `layer_12/width_16k/canonical`.")
    revision: Revision | None = Field(
        None, description="Commit of the release's repository; the newest, which the SAE's record names, if left out."
    )


class DemoSae(Entry):
    """An SAE trained on a demo model with sae-lens, on the spot."""

    demo: Literal["standard", "topk", "batchtopk", "jumprelu"] = Field(description="Architecture to train.")


class ControlSae(Entry):
    """Random features in place of an SAE's: as many of them, and in each token as many active ones."""

    control: Id = Field(description="Id of the SAE to match; model, layer, site and width are the same as there.")


class BorrowedSae(Entry):
    """An SAE of another model: of the one this model was tuned from, or of the one that is its language tower."""

    borrowed: Id = Field(description="Id of the SAE; layer, site and width are the same as there.")


def _source_key(value: Any) -> str | None:
    """The key that tells a source's kind: the first of the known ones that is there."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Entry) else ()
    return next((key for key in SOURCE_KEYS if key in keys), None)


SOURCE_KEYS = ("hub", "file", "saved", "images", "folder", "release", "demo", "control", "borrowed")

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
    | Annotated[ControlSae, Tag("control")]
    | Annotated[BorrowedSae, Tag("borrowed")],
    Discriminator(_source_key),
]


# --- the main entries ----------------------------------------------------------------------------------------------


class Dataset(Entry):
    """A table of labelled examples."""

    source: DatasetSource = Field(description="Where it comes from.")
    text: str = Field(
        "text",
        description="Column with the text, or a template of columns such as `Question: {goal} Answer:`. Images have none.",
    )
    image: str | None = Field(
        None,
        description="Column with an encoded image (PNG, JPEG) in the place of a text: Parquet, saved or from the Hub.",
    )
    label: str | None = Field(
        "label",
        description="Column with the label. null: there is none, and nothing is probed; models can be asked it as questions.",
    )
    columns: list[str] = Field(
        default_factory=list,
        description="Further columns to keep as text, for the options and answers of `behaviours`.",
    )
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
    title: Title | None = Field(None, description="What to call it in figures and tables; its id otherwise.")

    @property
    def holds_images(self) -> bool:
        return isinstance(self.source, ImageFolder) or self.image is not None

    @property
    def has_subsets(self) -> bool:
        return self.subset is not None or (isinstance(self.source, HubDataset) and self.source.subset is not None)


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
    images: bool = Field(
        False,
        description="A vision-language model: it reads images too, and what its vision tower says of them is kept beside.",
    )
    datasets: list[Id] | None = Field(
        None, description="Datasets this model reads; where absent all of them, images only with `images`."
    )
    title: Title | None = Field(None, description="What to call it in figures and tables; its id otherwise.")


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
    threads: int = Field(
        2,
        ge=1,
        le=256,
        description="Cores that a job which runs a model holds; a large model without a card wants many.",
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
    datasets: list[Id] | None = Field(
        None, description="Datasets that are probed; where absent all that have labels. Transfers read others too."
    )
    alone: list[Id] = Field(
        default_factory=list,
        description="Datasets whose subsets are also probed each by itself: trained and tested on one language, for example.",
    )
    models: list[Id] | None = Field(None, description="Models that are probed; all of them where absent.")
    protocols: list[Literal["paper", "strict"]] = Field(
        ["paper", "strict"], min_length=1, description="`paper`: the published procedure. `strict`: the one to believe."
    )
    strict: Strict = Field(default_factory=Strict, description="Settings of the strict protocol.")


class Explorer(Entry):
    """What is laid out of the best SAE probe of each dataset and model: features, their examples, and reasons."""

    features: int = Field(100, ge=0, le=2000, description="Features to list, the strongest first; 0 turns it off.")
    examples: int = Field(8, ge=1, le=50, description="Examples of each feature: those in which it is strongest.")
    predictions: int = Field(
        60, ge=0, le=2000, description="Test examples whose prediction is taken apart, half of them wrong ones."
    )


# --- behaviours and transfers --------------------------------------------------------------------------------------


class Likelihood(Entry):
    """A model is asked questions with options: its answer is the option that it finds most likely after the prompt."""

    rule: Literal["likelihood"] = Field(description="Which kind it is.")
    dataset: Id = Field(description="Dataset of questions; its text is the prompt.")
    model: Id = Field(description="The model that answers.")
    options: list[str] = Field(
        min_length=2, description="The options: words, or templates of columns such as `{option_a}`."
    )
    answer: str = Field(description="The right one: its text, or its number from 0, as a template such as `{answer}`.")
    per: Literal["sum", "token", "character"] = Field(
        "sum", description="What an option's log-likelihood is divided by: nothing, its tokens or its characters."
    )
    lead: str = Field(" ", description="What stands between prompt and option.")
    title: Title | None = Field(None, description="What to call it in figures and tables; its id otherwise.")


class Generation(Entry):
    """A model is asked questions: its answer is the text that it goes on with, greedily, up to the end of the line."""

    rule: Literal["generation"] = Field(description="Which kind it is.")
    dataset: Id = Field(description="Dataset of questions; its text is the prompt.")
    model: Id = Field(description="The model that answers.")
    answers: list[str] = Field(min_length=1, description="Right answers, as words or templates of columns.")
    max_tokens: int = Field(16, ge=1, le=256, description="Tokens to generate at most.")
    match: Literal["exact", "starts", "contains"] = Field(
        "exact", description="How it must agree with a right answer, less case, articles and punctuation."
    )
    title: Title | None = Field(None, description="What to call it in figures and tables; its id otherwise.")


Behaviour = Annotated[Likelihood | Generation, Discriminator("rule")]

Selection = Annotated[str, StringConstraints(pattern=r"^(none|l1|top-[1-9][0-9]{0,4})$")]


class Transfer(Entry):
    """What all kinds of transfer have. Classifiers are those of the strict protocol, with its C and inner folds."""

    folds: int = Field(
        5, ge=2, le=20, description="Every example is tested once, by what is trained without its fold and its group."
    )
    saes: list[Id] | None = Field(None, description="SAEs to read; all of the model's where absent, controls left out.")
    layers: list[Layer] | None = Field(
        None, description="Layers to read as hidden states; all of the model's where absent."
    )
    sae_poolings: list[Pooling] = Field(["sum"], min_length=1, description="As in `probes`; validation chooses.")
    thresholds: list[Annotated[float, Field(gt=0)] | None] = Field(
        [1.0], min_length=1, description="As in `probes`; validation chooses."
    )
    hidden_poolings: list[Literal["last", "mean", "max"]] = Field(
        ["last", "mean"], description="As in `probes`; validation chooses."
    )
    text: list[Literal["tfidf-word", "tfidf-char"]] = Field(
        ["tfidf-word", "tfidf-char"], description="TF-IDF beside them; validation chooses."
    )
    title: Title | None = Field(None, description="What to call it in figures and tables; its id otherwise.")


class LanguageTransfer(Transfer):
    """From each subset of a dataset to each: trained on one language, tested on another."""

    kind: Literal["language"] = Field(description="Which kind it is.")
    dataset: Id = Field(description="A dataset with subsets.")
    model: Id = Field(description="The model that reads it.")
    origin: str | None = Field(None, description="The subset that is shown as the usual origin, such as `en`.")
    translations: Id | None = Field(
        None,
        description="A dataset of the same ids, whose examples are translations; its part of a language is trained on too.",
    )
    train_shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=list, description="Also train on these shares of the training size."
    )
    selections: list[Selection] = Field(
        ["none"],
        min_length=1,
        description="Which SAE features are weighed: all (`none`), `top-K` by difference of means, or what `l1` leaves in.",
    )


class TaskTransfer(Transfer):
    """From each dataset to each of the same labels, and from all others to each."""

    kind: Literal["task"] = Field(description="Which kind it is.")
    datasets: list[Id] = Field(min_length=2, description="Datasets of texts.")
    model: Id = Field(description="The model that reads them.")
    labels: dict[Id, dict[str, str]] = Field(
        default_factory=dict, description="Dataset to {its label: the common label}, where it has its own words."
    )


class ModelTransfer(Transfer):
    """What models' reading of a question tells about whether another model answers it right."""

    kind: Literal["model"] = Field(description="Which kind it is.")
    behaviours: list[Id] = Field(default_factory=list, description="Behaviours to predict.")
    published: dict[Id, Id | None] = Field(
        default_factory=dict,
        description="Datasets whose labels say whether a model was right, to that model's id, or null if it is not here.",
    )
    models: list[Id] = Field(min_length=1, description="Models whose reading predicts.")


class ModalityTransfer(Transfer):
    """What the language tower of a vision-language model makes of images, also to a classifier that saw text alone."""

    kind: Literal["modality"] = Field(description="Which kind it is.")
    model: Id = Field(description="A vision-language model.")
    images: Id = Field(description="Dataset of images.")
    names: Id | None = Field(None, description="Dataset of texts that name the same labels, to train on for images.")


class DictionaryTransfer(Transfer):
    """What an SAE of one model is worth on its sibling, for each pair of own and borrowed SAEs there is."""

    kind: Literal["dictionary"] = Field(description="Which kind it is.")
    dataset: Id = Field(description="What both models read.")
    models: list[Id] = Field(
        min_length=2, max_length=2, description="The two models, such as the base one and the tuned."
    )


AnyTransfer = Annotated[
    LanguageTransfer | TaskTransfer | ModelTransfer | ModalityTransfer | DictionaryTransfer, Discriminator("kind")
]


# --- the demo world ------------------------------------------------------------------------------------------------


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
    others: int = Field(200, ge=20, description="Examples of each of the other kinds of text, in English.")
    marked: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the harmful requests that end in a made-up word: a shortcut, planted to see it found.",
    )


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
    questions: int = Field(320, ge=20, description="Questions of the quiz.")
    tuned_steps: int = Field(70, ge=1, description="Steps by which the large model is tuned.")
    vision_steps: int = Field(300, ge=1, description="Training steps of the vision tower.")
    digits: int = Field(600, ge=50, le=1000, description="Images of digits to probe; the tower learns from the others.")


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
    explorer: Explorer = Field(default_factory=Explorer, description="What is shown of the best SAE probes.")
    behaviours: dict[Id, Behaviour] = Field(
        default_factory=dict, description="Questions that models are asked, by id: which do they answer right?"
    )
    transfers: dict[Id, AnyTransfer] = Field(
        default_factory=dict, description="Transfers by id; each is one matrix of scores."
    )
    demo: Demo = Field(default_factory=Demo, description="The demo world; matters only to `demo` sources.")

    def reads(self, model: str, dataset: str) -> bool:
        """Whether a model reads a dataset."""
        entry = self.models[model]
        if entry.datasets is not None:
            return dataset in entry.datasets
        return entry.images or not self.datasets[dataset].holds_images

    def borrowed_between(self, models: Collection[str]) -> Iterator[tuple[str, str]]:
        """Pairs of an SAE of one of the models and its reading on another of them."""
        for name, sae in self.saes.items():
            if isinstance(sae.source, BorrowedSae) and sae.source.borrowed in self.saes:
                home = self.saes[sae.source.borrowed].model
                if home in models and sae.model in models and home != sae.model:
                    yield sae.source.borrowed, name

    def models_of(self, transfer: str) -> list[str]:
        """The models that read for a transfer."""
        entry = self.transfers[transfer]
        return list(entry.models) if isinstance(entry, ModelTransfer | DictionaryTransfer) else [entry.model]

    def datasets_of(self, transfer: str) -> list[str]:
        """The datasets that are read for a transfer."""
        found: list[str | None]
        match self.transfers[transfer]:
            case LanguageTransfer(dataset=dataset, translations=translations):
                found = [dataset, translations]
            case TaskTransfer(datasets=datasets):
                found = [*datasets]
            case ModalityTransfer(images=images, names=names):
                found = [images, names]
            case DictionaryTransfer(dataset=dataset):
                found = [dataset]
            case ModelTransfer(behaviours=behaviours, published=published):
                found = [self.behaviours[name].dataset for name in behaviours if name in self.behaviours]
                found += published
        return list(dict.fromkeys(name for name in found if name is not None))


# --- documentation -------------------------------------------------------------------------------------------------

SECTIONS: list[type[BaseModel]] = [
    Config,
    Dataset,
    Model,
    Sae,
    Capture,
    Probes,
    Strict,
    Explorer,
    Likelihood,
    Generation,
    LanguageTransfer,
    TaskTransfer,
    ModelTransfer,
    ModalityTransfer,
    DictionaryTransfer,
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
    ControlSae,
    BorrowedSae,
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
