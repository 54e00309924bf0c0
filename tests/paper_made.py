"""The published study in miniature: its config made small by code, and a Hub that serves all that it names.

The config is `config/paper.yaml` read and shrunk, never written anew, so that a key which changes there changes here. What
it names lies in a Hub on loopback under the very names: models of a few kilobytes with as many layers as are read, Gemma
Scope's files at the places of sae-lens's directory, tables with the columns that the config reads. Everything comes from
seeds.

Widths of 16k and 65k are the true ones, because the published scores are of these; a vector has 16 or 24 numbers instead.
Those of 131k and a million are made to be 4k and 32k.
"""

import io
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import gemma_scope_made
import numpy as np
import safetensors.torch
import torch
import yaml
from hub_served import Hub
from models_made import gemma, paligemma, png, trained_tokenizer
from PIL import Image
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from worlds import COMMON, ROOT, World

TOKEN = "the-token-of-whoever-runs-the-study"  # noqa: S105 - a made-up one

# A study of 28 tables starts a thousand processes, and a third of them shows as much. Each of these is one more of a kind.
LEFT_OUT = {
    "election-questions": "a short English text, as jailbreak",
    "reject-prompts": "a short English text, as jailbreak",
    "stance-abortion": "a short English text, as jailbreak",
    "banking77": "an English text with many labels, as massive-scenario",
    "massive-intent": "an English text with many labels, as massive-scenario",
    "sentiment-translated": "splits as subsets and the column of a translation, as toxicity-translated",
    "nq-swap-org-none": "a published behaviour of `user` and `score`, as nq-swap-sub-question",
    "nq-swap-org-question": "a published behaviour of `user` and `score`, as nq-swap-sub-question",
    "pubmedqa-2b": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
    "pubmedqa-9b-it": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
    "boolq-2b": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
    "boolq-9b": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
    "piqa-2b": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
    "piqa-9b": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
    "piqa-9b-it": "a published behaviour of `input_prompt` and `model_score`, as pubmedqa-9b",
}
# What is read for transfers alone, and not probed beside.
NOT_PROBED = {
    "toxicity-paired": "probed as toxicity is",
    "sentiment": "probed as toxicity is, whose subsets are splits; its own configurations are those of a transfer",
    "massive-scenario": "probed as the images are, which have several labels, too",
    "oxford-flowers": "probed as cifar100 is",
    "tiny-imagenet": "probed as cifar100 is",
    "pubmedqa-9b": "a behaviour is predicted by probes as nq-swap-sub-question is, by transfers as all are",
}
# The folders of Gemma Scope that stand for the widest ones, and their widths.
NARROWER = {131072: ("4k", 4096), 1048576: ("32k", 32768)}
HIDDEN = {"gemma-2-2b": 16, "gemma-2-9b": 24, "gemma-2-9b-it": 24, "paligemma-2-3b": 16}
EXAMPLES = 60
# As many rows as the study's test part was drawn from, so that the scores are of the same data by all that can be told.
TRUE_SIZE = {"jailbreak": 262}

# What each table labels its rows with.
LABELS: dict[str, list[Any]] = {
    "jailbreak": ["benign", "jailbreak"],
    "massive-scenario": ["alarm", "calendar", "cooking", "lists", "music", "weather"],
    "toxicity": [0, 1],
    "toxicity-paired": [0, 1],
    "sentiment": ["negative", "neutral", "positive"],
    "nq-swap-sub-question": [0, 1],
    "pubmedqa-9b": ["Correct", "Incorrect"],
    "cifar100": ["apple", "bear", "castle", "dolphin"],
    "indian-food-train": ["burger", "chai", "dosa"],
    "oxford-flowers": ["daisy", "iris", "rose", "tulip"],
    "tiny-imagenet": ["n01443537", "n01629819", "n01641577"],
}


# --- the config ----------------------------------------------------------------------------------------------------


def study() -> dict[str, Any]:
    """The config of the study."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    return config


def small_study() -> dict[str, Any]:
    """The same with less of a kind, less to read and less to choose from."""
    config = study()
    for name in LEFT_OUT:
        del config["datasets"][name]
        config["transfers"]["behaviours"]["published"].pop(name, None)
    probes = config["probes"]
    probes["datasets"] = [name for name in probes["datasets"] if name not in {*LEFT_OUT, *NOT_PROBED}]
    probes["alone"] = [name for name in probes["alone"] if name not in NOT_PROBED]
    config["datasets"]["tiny-imagenet"]["max_examples"] = 30
    for sae in config["saes"].values():
        sae["width"] = NARROWER.get(sae["width"], ("", sae["width"]))[1]
    probes |= {"strict": {"seeds": 2, "inner_folds": 2, "c": [0.1, 1.0]}, "sparse_k": [1, 8]}
    for transfer in config["transfers"].values():
        transfer["folds"] = 2
    # Two threads that wait for each other over a model as small as this take longer than one.
    config["capture"] = {"threads": 1}
    config["explorer"] = {"features": 6, "examples": 3, "predictions": 6}
    return config


# --- what the Hub holds --------------------------------------------------------------------------------------------


def serve(hub: Hub, folder: Path) -> None:
    """Put all that the config names onto a Hub. The models are gated, and open to `TOKEN`; `folder` is for their making."""
    hub.own |= dict(tables())
    tokenizer = trained_tokenizer(words_of_all(), 2000)
    config = small_study()
    for name, model in config["models"].items():
        repository = model["source"]["hub"]
        hub.own[repository] = model_files(folder, name, 1 + max(model["layers"]), tokenizer)
        hub.gated[repository] = TOKEN
    for repository, files in saes(folder).items():
        hub.own[repository] = files


def model_files(folder: Path, name: str, layers: int, tokenizer: PreTrainedTokenizerFast) -> dict[str, bytes]:
    size = HIDDEN[name]
    shape = {"hidden_size": size, "intermediate_size": 2 * size, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512}
    if name == "paligemma-2-3b":
        # The processor adds a token for images, and those of places in them, which no input has.
        paligemma(folder / name, tokenizer, {**shape, "vocab_size": len(tokenizer) + 1})
    else:
        gemma(folder / name, tokenizer, **shape, vocab_size=len(tokenizer), initializer_range=0.2)
    if name == "gemma-2-9b-it":
        tuned(folder / name / "model.safetensors")
    return {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}


def tuned(weights: Path) -> None:
    """Make the weights of another model, which is near: models of one shape start from one seed, and tuning moves them."""
    torch.manual_seed(1)
    moved = {
        name: tensor + 0.02 * torch.randn(tensor.shape)
        for name, tensor in sorted(safetensors.torch.load_file(weights).items())
    }
    safetensors.torch.save_file(moved, weights, metadata={"format": "pt"})


# --- Gemma Scope ---------------------------------------------------------------------------------------------------


@cache
def releases() -> dict[str, Any]:
    """The entries of sae-lens's directory that the study names, with the sizes of ours."""
    theirs, found = gemma_scope_made.directory(), {}
    for _, sae in released():
        release = sae["source"]["release"]
        entry = found.setdefault(
            release, {**theirs[release], "saes": [], "config_overrides": {"d_in": HIDDEN[sae["model"]]}}
        )
        (each,) = [each for each in theirs[release]["saes"] if each["id"] == sae["source"]["id"]]
        wide = NARROWER.get(sae["width"])
        entry["saes"].append({**each, "path": in_folder_of(each["path"], wide[0])} if wide else each)
    return found


def released() -> list[tuple[str, dict[str, Any]]]:
    """The SAEs of the study that come from a release."""
    return [(name, sae) for name, sae in study()["saes"].items() if "release" in sae["source"]]


def in_folder_of(path: str, width: str) -> str:
    """Where an SAE lies that a narrower one stands for: its own name ends in it, so that none lies where another does."""
    layer, of, active = path.split("/")
    return f"{layer}/width_{width}/{active}_{of}"


def saes(folder: Path) -> dict[str, dict[str, bytes]]:
    """Repository -> its files. What features read is as large as the states of the model at their layer."""
    found: dict[str, dict[str, bytes]] = {}
    scales: dict[str, list[float]] = {}
    small = small_study()["saes"]
    for number, (name, sae) in enumerate(released()):
        model, release = sae["model"], releases()[sae["source"]["release"]]
        if model not in scales:
            scales[model] = state_sizes(folder / model)
        scale, width = scales[model][sae["layer"]], small[name]["width"]
        # The wider, the rarer a feature, so that about as many are active in a token.
        low = 2.2 if width < 2**15 else 2.6
        weights = gemma_scope_made.weights(HIDDEN[model], width, seed=number, thresholds=(low, low + 0.5), scale=scale)
        (each,) = [each for each in release["saes"] if each["id"] == sae["source"]["id"]]
        content = gemma_scope_made.packed(gemma_scope_made.reconstructing(weights, scale=scale))
        found.setdefault(release["repo_id"], {})[f"{each['path']}/params.npz"] = content
    return found


@torch.inference_mode()
def state_sizes(folder: Path) -> list[float]:
    """The root mean square of what each layer of a model puts out. Of the last one the model itself reports a normalised state."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    found: list[float] = []
    for block in model.model.layers:
        block.register_forward_hook(lambda _, given, states: found.append(float(states.square().mean().sqrt())))
    model(torch.arange(3, 67)[None])
    return found


# --- tables --------------------------------------------------------------------------------------------------------


def tables() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Repository -> its files: a Parquet file for each split of each configuration, and a card that says where they are."""
    by_repository: dict[str, list[str]] = {}
    config = small_study()["datasets"]
    for name, entry in config.items():
        by_repository.setdefault(entry["source"]["hub"], []).append(name)
    for repository, names in by_repository.items():
        sources = [config[name]["source"] for name in names]
        configs = sources[0].get("configs", ["default"])
        splits = list(dict.fromkeys(chain.from_iterable(source.get("splits", ["train"]) for source in sources)))
        files, card = {}, []
        for part in configs:
            found = []
            for split in splits:
                path = f"{part}/{split}-00000-of-00001.parquet"
                files[path] = parquet(names[0], config, f"{part}-{split}")
                found.append({"split": split, "path": path})
            card.append({"config_name": part, "data_files": found})
        files["README.md"] = f"---\n{yaml.safe_dump({'configs': card}, sort_keys=False)}---\n".encode()
        yield repository, files


def parquet(name: str, config: dict[str, Any], part: str) -> bytes:
    """One split of the repository of a dataset, with the columns of every dataset that reads it."""
    entry, labels = config[name], LABELS[name]
    random = np.random.default_rng([*f"{name} {part}".encode()])
    number = TRUE_SIZE.get(
        name,
        EXAMPLES if entry["source"].get("subset") is None else EXAMPLES // (4 if "configs" in entry["source"] else 2),
    )
    kinds = np.arange(number) % len(labels)
    random.shuffle(kinds)
    columns: dict[str, Any] = {"number": list(range(number))}
    features: dict[str, Any] = {"number": datasets.Value("int64")}
    if "image" in entry:
        columns[entry["image"]] = [{"bytes": image(kind, random), "path": None} for kind in kinds]
        features[entry["image"]] = datasets.Image()
    else:
        texts = [text(kind, random) for kind in kinds]
        language = part.split("-")[0 if "configs" in entry["source"] else 1]
        columns[entry["text"]] = [in_language(each, language) for each in texts]
        features[entry["text"]] = datasets.Value("string")
        if name == "toxicity-paired":
            columns["translation"], features["translation"] = texts, datasets.Value("string")
    if "image" in entry or name == "sentiment":
        columns[entry["label"]], features[entry["label"]] = kinds.tolist(), datasets.ClassLabel(names=labels)
    else:
        columns[entry["label"]] = [labels[kind] for kind in kinds]
        features[entry["label"]] = datasets.Value("int64" if isinstance(labels[0], int) else "string")
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(buffer)
    return buffer.getvalue()


def image(kind: int, random: np.random.Generator) -> bytes:
    """A noisy picture, brighter in the quarter that its label says."""
    pixels = random.integers(0, 150, (16, 16, 3))
    row, column = divmod(kind, 2)
    pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 100
    return png(Image.fromarray(pixels.astype(np.uint8)))


SYLLABLES = [f"{start}{vowel}" for start in "bdfgklmnprst" for vowel in "aeiou"]


@cache
def own_words(kind: int) -> list[str]:
    """The words that speak of a label."""
    random = np.random.default_rng(kind)
    return ["".join(random.choice(SYLLABLES, 3)) for _ in range(12)]


def text(kind: int, random: np.random.Generator) -> str:
    """A few words, some of them those of its label."""
    words = [
        str(random.choice(own_words(kind) if random.random() < 0.4 else COMMON)) for _ in range(random.integers(4, 10))
    ]
    return " ".join(words)


def in_language(given: str, language: str) -> str:
    """The same words with an ending of the language; in English as they are."""
    if language in ("en", "english", "train", "test"):
        return given
    return " ".join(f"{word}{language[:2]}" for word in given.split())


def words_of_all() -> list[str]:
    """What a tokenizer learns from: every word in every language."""
    words = [*COMMON, *chain.from_iterable(own_words(kind) for kind in range(6))]
    languages = ["en", "es", "de", "ru", "zh", "french", "portuguese", "italian", "arabic", "hindi"]
    return [f" {in_language(word, language)}" for language in languages for word in words]


# --- a run ---------------------------------------------------------------------------------------------------------


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """The settings of whoever runs the study: the Hub's address, a token, and sae-lens with the directory of small SAEs."""
    lens = gemma_scope_made.beside(folder / "sae-lens", releases())
    return {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HOME": str(folder / "cache"),
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": f"{ROOT / 'src'}:{lens}",
    }


def world(folder: Path) -> World:
    folder.mkdir(parents=True)
    return World(folder)
