"""A language model brought from the Hub, a folder or the demo world into results/models/.

What is kept is a Hugging Face folder of config, tokenizer or processor, and safetensors: nothing that could run. Weights
that exist only as a pickle, configs that ask for code of their own, and links that lead out of a folder are refused. What
does not open is said so here, before anything is computed; that tensors fit the config shows when the model is opened.
"""

import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from tessera.downloads import model_files
from tessera.errors import UserError
from tessera.files import read_json
from tessera.hub import hub_trouble
from tessera.snapshots import bring, opening, write_record
from tessera.vision import feature_size, reads_images

ALLOWED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
# Where files of the Hub arrive, inside the model's folder.
FETCHED = ".fetched"
# Keys by which a file asks for code of its own to be run.
CODE = ("auto_map", "trust_remote_code")
SAVE_AGAIN = "fetch the model again, or save it again with save_pretrained"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def store(name: str, source: dict[str, str], folder: Path, given: Path | None) -> None:
    """Bring a model into `folder`. `given` is the local folder of a source that is not on the Hub."""
    key = f"models.{name}.source"
    if given is None:
        # In a folder of its own: when the Hub fails, the client hands over whatever lies in the folder already. What has
        # arrived stays there until the record is written, so that a job that was stopped fetches only the files it still lacks.
        fetched = folder / FETCHED / source["revision"]
        with hub_trouble(key, source["hub"]):
            model_files(source["hub"], source["revision"], fetched, _is_wanted)
        bring(fetched, folder, ALLOWED)
    else:
        bring(given, folder, ALLOWED)
    _check(folder, given or folder, key)
    with opening(
        key, "its config.json", "use a language model that transformers itself knows, as save_pretrained wrote it"
    ):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config()
        shapes = {
            "model_type": config.model_type,
            "layers": text.num_hidden_layers,
            "hidden_size": text.hidden_size,
            "attention_size": text.num_attention_heads
            * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads),
            "context": getattr(text, "max_position_embeddings", None),
            "vocabulary": text.vocab_size,
        }
    with opening(key, "its tokenizer", "save the tokenizer into the same folder again"):
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if reads_images(config):
        shapes |= {"modality": "vision", "text_model_type": text.model_type, "vision_size": feature_size(config)}
    write_record(folder, source, given, shapes)
    if given is None:
        shutil.rmtree(folder / FETCHED)


def _is_wanted(file: str) -> bool:
    """Whether a model needs a file. Repositories keep the same model for other programs in folders of their own."""
    return "/" not in file and any(fnmatch(file, pattern) for pattern in ALLOWED)


def _check(folder: Path, origin: Path, key: str) -> None:
    """Refuse what cannot be read, or should not be."""
    if not (folder / "config.json").is_file():
        raise UserError(key, f"'{origin}' has no config.json", "give the folder that save_pretrained wrote")
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in origin.iterdir() if path.suffix in PICKLES)
        found = f", only {pickled[0]}, a pickle, which could run code" if pickled else ""
        raise UserError(key, f"'{origin}' holds no safetensors{found}", "save the model with safe_serialization=True")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise UserError(key, f"'{origin}' has no tokenizer", "save the tokenizer into the same folder")
    if (folder / ADAPTER).is_file():
        raise UserError(key, f"{ADAPTER} changes the model as it is opened", "merge the adapter and save the result")
    for file in sorted(folder.glob("*.json")):
        with opening(key, file.name, SAVE_AGAIN):
            content = read_json(file)
        if asks := _asks_for_code(content):
            wrong = f"{file.name} asks to run code that comes with the model ({asks})"
            raise UserError(key, wrong, "use a model that transformers itself knows")
    _check_index(folder, key)
    tensors = sum(len(_tensors(file, key)) for file in folder.glob("*.safetensors"))
    # A config alone may ask for more layers than any memory holds.
    if (layers := max(_layers(read_json(folder / "config.json")), default=0)) > tensors:
        raise UserError(key, f"config.json says {layers} layers, and there are {tensors} tensors", SAVE_AGAIN)


def _asks_for_code(content: Any) -> str | None:
    """The key by which a JSON file asks for code of its own, wherever in it that stands."""
    return next((name for name, value in _entries(content) if name in CODE and value), None)


def _layers(content: Any) -> Iterator[int]:
    """What a config says of how deep something is."""
    return (value for name, value in _entries(content) if name.endswith(("layers", "n_layer")) and type(value) is int)


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON file with its value, however deep it stands."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_index(folder: Path, key: str) -> None:
    """Weights in several parts have an index that names them, and names are all they may be."""
    if not (folder / INDEX).is_file():
        if not (folder / WEIGHTS).is_file():
            raise UserError(key, f"it has neither {WEIGHTS} nor {INDEX}", SAVE_AGAIN)
        return
    with opening(key, INDEX, SAVE_AGAIN):
        parts = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    there = {path.name for path in folder.glob("*.safetensors")}
    if missing := [part for part in parts if part not in there]:
        raise UserError(key, f"{INDEX} names '{missing[0]}', which is not in the folder", SAVE_AGAIN)


def _tensors(file: Path, key: str) -> list[str]:
    with opening(key, file.name, SAVE_AGAIN), safe_open(file, framework="numpy") as opened:
        return list(opened.keys())
