"""A language model brought from the Hub, a folder or the demo world into results/models/.

What is kept is a Hugging Face folder of config, tokenizer or processor, and safetensors: nothing that could run. Weights
that exist only as a pickle, and configs that ask for code of their own, are refused.
"""

import shutil
from fnmatch import fnmatch
from pathlib import Path

from transformers import AutoConfig

from tessera.downloads import model_files
from tessera.errors import UserError
from tessera.files import read_json
from tessera.hub import hub_trouble
from tessera.snapshots import bring, write_record
from tessera.vision import feature_size, reads_images

ALLOWED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def store(name: str, source: dict[str, str], folder: Path, given: Path | None) -> None:
    """Bring a model into `folder`. `given` is the local folder of a source that is not on the Hub."""
    key = f"models.{name}.source"
    if given is None:
        # In a folder of its own: when the Hub fails, the client hands over whatever lies in the folder already. What has
        # arrived stays there until all of it has, so that a job that was stopped fetches only the files it still lacks.
        fetched = folder / ".fetched" / source["revision"]
        with hub_trouble(key, source["hub"]):
            model_files(source["hub"], source["revision"], fetched, _is_wanted)
        bring(fetched, folder, ALLOWED)
        shutil.rmtree(folder / ".fetched")
    else:
        bring(given, folder, ALLOWED)
    _check(folder, given or folder, key)
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
    if reads_images(config):
        shapes |= {"modality": "vision", "text_model_type": text.model_type, "vision_size": feature_size(config)}
    write_record(folder, source, given, shapes)


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
    for file in folder.glob("*.json"):
        content = read_json(file)
        if isinstance(content, dict) and "auto_map" in content:
            wrong = f"{file.name} asks to run code that comes with the model (auto_map)"
            raise UserError(key, wrong, "use a model that transformers itself knows")
