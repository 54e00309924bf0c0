"""Folders of models and SAEs of any kind, from slips to malice: what does not fit, is damaged or leads elsewhere is one line."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saes_made import random_sae
from safetensors.torch import load_file, save_file

from tessera import model_snapshots, sae_snapshots
from tessera.errors import UserError
from tessera.files import read_json, write_json
from tessera.models import LanguageModel
from tessera.saes import CONFIG, WEIGHTS
from tessera.snapshots import NOTES, RECORD, write_record

Change = Callable[[Path], object]
UP = "model.layers.1.mlp.up_proj.weight"


class Runs:
    """What leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def config(name: str = "config.json", **values: Any) -> Change:
    def change(folder: Path) -> None:
        content = read_json(folder / name) | values
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def written(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def tensors(change: Callable[[dict[str, torch.Tensor]], object], name: str = "model.safetensors") -> Change:
    def changed(folder: Path) -> None:
        held = load_file(folder / name)
        change(held)
        save_file(held, folder / name, {"format": "pt"})

    return changed


def cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def pickled(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Runs(folder / "run")))


def in_parts(part: str) -> Change:
    """Weights whose index names one part, and the part itself as another file."""

    def change(folder: Path) -> None:
        names = dict.fromkeys(load_file(folder / "model.safetensors"), part)
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})

    return change


def linked(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def store_model(origin: Path, folder: Path) -> None:
    model_snapshots.store("m", {"folder": str(origin)}, folder, origin)


def read_model(folder: Path) -> torch.Tensor:
    given: dict[str, Any] = {"dtype": "float32", "attention": "eager", "device": "cpu", "key": "models.m"}
    model = LanguageModel(folder, places=[(1, "resid_post")], **given)
    return model.read(model.tokenize(["a short text"], 32))[1, "resid_post"]


OPENED, SAVE = "cannot be opened (", "Mend: fetch the model again, or save it again with save_pretrained."
BROUGHT: dict[str, tuple[Change, str]] = {
    "cut": (cut("model.safetensors"), f"model.safetensors {OPENED}SafetensorError: "),
    "empty": (written("model.safetensors", b""), f"model.safetensors {OPENED}"),
    "header": (written("model.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"), f"model.safetensors {OPENED}"),
    "pickle": (pickled("model.safetensors"), f"model.safetensors {OPENED}SafetensorError: "),
    "one-part": (in_parts("gone.safetensors"), "index.json names 'gone.safetensors', which is not in the folder"),
    "part-outside": (in_parts("../part.safetensors"), "index.json names '../part.safetensors', which is not in the"),
    "part-anywhere": (in_parts("/dev/zero"), "index.json names '/dev/zero', which is not in the folder"),
    "no-index": (lambda folder: (folder / "model.safetensors").rename(folder / "x.safetensors"), "it has neither model"),
    "index": (written("model.safetensors.index.json", b"[]"), f"model.safetensors.index.json {OPENED}TypeError"),
    "no-json": (written("config.json", b"{"), f"config.json {OPENED}JSONDecodeError: "),
    "no-text": (written("config.json", b"\xff\xfe"), f"config.json {OPENED}UnicodeDecodeError: "),
    "deep": (written("more.json", b"[" * 100_000), f"more.json {OPENED}RecursionError: "),
    "list": (written("config.json", b"[]"), f"its config.json {OPENED}ValueError: Unrecognized model"),
    "type": (config(model_type="unheard-of"), f"its config.json {OPENED}ValueError: "),
    "no-language": (config(model_type="vit", vocab_size=None), f"its config.json {OPENED}"),
    "words": (config(num_hidden_layers="many"), f"its config.json {OPENED}"),
    "no-heads": (config(num_attention_heads=0), f"its config.json {OPENED}"),
    "layers": (config(num_hidden_layers=10**9), "config.json says 1000000000 layers, and there are"),
    "tokenizer": (written("tokenizer.json", b'{"model": {"type": "Strange"}}'), f"its tokenizer {OPENED}"),
    "settings": (written("tokenizer_config.json", b"[]"), f"its tokenizer {OPENED}"),
    "code": (config(auto_map={"AutoModel": "evil.Model"}), "config.json asks to run code that comes with the model (auto"),
    "inner-code": (config(text_config={"auto_map": {"AutoModel": "evil.Model"}}), "config.json asks to run code that"),
    "trust": (config(trust_remote_code=True), "config.json asks to run code that comes with the model (trust_remote_code)"),
    "words-code": (
        config("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Words", None]}),
        "tokenizer_config.json asks to run code that comes with the model (auto_map). Mend: use a model that transformers",
    ),
    "adapter": (
        written("adapter_config.json", b'{"base_model_name_or_path": "owner/other"}'),
        "adapter_config.json changes the model as it is opened. Mend: merge the adapter and save the result.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROUGHT)
def test_a_model_that_is_damaged_or_hostile_is_not_brought(tmp_path: Path, tiny_model: Path, name: str) -> None:
    change, words = BROUGHT[name]
    change(Path(shutil.copytree(tiny_model, tmp_path / "origin")))
    with pytest.raises(UserError) as caught:
        store_model(tmp_path / "origin", tmp_path / "stored")
    assert words in str(caught.value)
    assert str(caught.value).startswith("models.m.source: ")
    assert not (tmp_path / "stored" / RECORD).exists()
    assert not (tmp_path / "origin/run").exists()


WHOLE = "Mend: use a whole model that transformers itself knows, as save_pretrained wrote it."
READ: dict[str, tuple[Change, str]] = {
    "missing": (tensors(lambda held: held.pop(UP)), "its files lack the tensor layers.1.mlp.up_proj.weight."),
    "deeper": (
        tensors(lambda held: [held.pop(UP), held.pop(UP.replace("1", "3"))]),
        "its files lack the tensor layers.1.mlp.up_proj.weight, and 1 others.",
    ),
    "words": (tensors(lambda held: held.pop("model.embed_tokens.weight")), "its files lack the tensor embed_tokens.weight."),
    "shape": (tensors(lambda held: held.update({UP: torch.zeros(3, 3)})), "its tensors have other shapes than its config"),
    "size": (config(hidden_size=10**9), "its tensors have other shapes than its config"),
    "vocabulary": (config(vocab_size=10**9), "its tensors have other shapes than its config"),
    "packed": (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), f"the model {OPENED}"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_model_whose_tensors_do_not_fit_its_config_is_not_read(tmp_path: Path, tiny_model: Path, name: str) -> None:
    """A library that is lenient fills what is missing with random numbers."""
    change, words = READ[name]
    change(Path(shutil.copytree(tiny_model, tmp_path / "origin")))
    store_model(tmp_path / "origin", tmp_path / "stored")
    with pytest.raises(UserError) as caught:
        read_model(tmp_path / "stored")
    assert str(caught.value).startswith(f"models.m.source: {words}")
    assert str(caught.value).endswith(WHOLE)


def test_a_tensor_too_many_changes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    change = tensors(lambda held: held.update(evil=torch.zeros(3)))
    change(Path(shutil.copytree(tiny_model, tmp_path / "origin")))
    store_model(tmp_path / "origin", tmp_path / "stored")
    assert torch.equal(read_model(tmp_path / "stored"), read_model(tiny_model))


@pytest.mark.parametrize("name", ["vocab.txt", "config.json", "model.safetensors"])
def test_a_link_out_of_a_models_folder_is_not_followed(tmp_path: Path, tiny_model: Path, name: str) -> None:
    shutil.copytree(tiny_model, tmp_path / "origin")
    secret = tmp_path / "secret"
    secret.write_bytes((tiny_model / "config.json").read_bytes())
    linked(name, "../secret")(tmp_path / "origin")
    with pytest.raises(UserError) as caught:
        store_model(tmp_path / "origin", tmp_path / "stored")
    where = f"{tmp_path / 'origin' / name}: this link leads out of its folder, to '{secret.resolve()}'"
    assert str(caught.value) == f"{where}. Mend: put the file itself there."
    assert not [path for path in (tmp_path / "stored").rglob("*") if path.samefile(secret)]


def test_what_is_no_file_is_not_brought(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "origin")
    linked("vocab.txt", "/dev/zero")(tmp_path / "origin")
    linked("gone.json", "nowhere")(tmp_path / "origin")
    (tmp_path / "origin/folder.json").mkdir()
    os.mkfifo(tmp_path / "origin/pipe.json")
    store_model(tmp_path / "origin", tmp_path / "stored")
    here = {path.name for path in (tmp_path / "stored").iterdir()}
    assert here == {path.name for path in tiny_model.iterdir()} | {RECORD, NOTES}


def test_links_inside_a_folder_and_those_of_the_hubs_cache_are_followed(tmp_path: Path, tiny_model: Path) -> None:
    snapshot = tmp_path / "models--owner--name/snapshots/abc"
    snapshot.mkdir(parents=True)
    blobs = Path(shutil.copytree(tiny_model, tmp_path / "models--owner--name/blobs"))
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    (snapshot / "more.json").symlink_to("config.json")
    store_model(snapshot, tmp_path / "stored")
    assert (tmp_path / "stored/more.json").read_bytes() == (tiny_model / "config.json").read_bytes()


# --- SAEs ----------------------------------------------------------------------------------------------------------

SAE = "saes.s.source.folder: "
SAES: dict[str, tuple[Change, str]] = {
    "missing": (tensors(lambda held: held.pop("threshold"), WEIGHTS), 'Missing key(s) in state_dict: "threshold"'),
    "extra": (tensors(lambda held: held.update(evil=torch.zeros(3)), WEIGHTS), 'Unexpected key(s) in state_dict: "evil"'),
    "shape": (tensors(lambda held: held.update(W_enc=torch.zeros(96, 32)), WEIGHTS), "size mismatch for W_enc"),
    "cut": (cut(WEIGHTS), "SafetensorError"),
    "pickle": (pickled(WEIGHTS), "SafetensorError"),
    "size": (config(CONFIG, d_sae=10**15), "size mismatch"),
    "words": (config(CONFIG, d_sae="many"), "cannot be opened (TypeError"),
    "negative": (config(CONFIG, d_sae=-1), "negative dimension"),
    "no-size": (config(CONFIG, d_in=None), "cannot be opened (TypeError"),
    "kind": (config(CONFIG, architecture="unheard-of"), "cannot be opened (KeyError: 'unheard-of')"),
    "no-kind": (config(CONFIG, architecture=None), "cannot be opened (KeyError"),
    "metadata": (config(CONFIG, metadata=[1]), "cannot be opened (AttributeError"),
    "no-json": (written(CONFIG, b"{"), "cannot be opened (JSONDecodeError"),
    "no-text": (written(CONFIG, b"\xff\xfe"), "cannot be opened (UnicodeDecodeError"),
    "list": (written(CONFIG, b"[]"), "cannot be opened (TypeError"),
    "deep": (written(CONFIG, b"[" * 100_000), "cannot be opened (RecursionError"),
    "no-weights": (lambda folder: (folder / WEIGHTS).rename(folder / "sae_weights.pt"), f"has no {WEIGHTS}"),
    "endless": (linked(WEIGHTS, "/dev/zero"), f"has no {WEIGHTS}"),
}  # fmt: skip


def store_sae(origin: Path, folder: Path) -> None:
    sizes = {"layers": 4, "hidden_size": 32, "attention_size": 32}
    write_json(origin.parent / "model.json", sizes)
    entry = {"source": {"folder": str(origin)}, "model": "m", "layer": 1, "site": "resid_post", "width": 96}
    sae_snapshots.store("s", entry, folder, origin, origin.parent / "model.json")


@pytest.mark.parametrize("name", SAES)
def test_an_sae_that_is_damaged_or_hostile_is_one_line(tmp_path: Path, name: str) -> None:
    change, words = SAES[name]
    random_sae(tmp_path / "origin", "jumprelu")
    change(tmp_path / "origin")
    with pytest.raises(UserError) as caught:
        store_sae(tmp_path / "origin", tmp_path / "stored")
    assert str(caught.value).startswith(SAE)
    assert words in str(caught.value)
    assert not (tmp_path / "stored" / RECORD).exists()
    assert not (tmp_path / "origin/run").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_sae_with_anything_but_numbers_in_it_is_one_line(tmp_path: Path, value: float) -> None:
    random_sae(tmp_path / "origin", "jumprelu")
    tensors(lambda held: held["b_enc"][5:6].fill_(value), WEIGHTS)(tmp_path / "origin")
    with pytest.raises(UserError, match="tensor b_enc holds values that are not finite"):
        store_sae(tmp_path / "origin", tmp_path / "stored")


def test_a_link_out_of_an_saes_folder_is_not_followed(tmp_path: Path) -> None:
    random_sae(tmp_path / "origin", "jumprelu")
    (tmp_path / "origin" / WEIGHTS).rename(tmp_path / "elsewhere")
    linked(WEIGHTS, "../elsewhere")(tmp_path / "origin")
    with pytest.raises(UserError, match=rf"origin/{WEIGHTS}: this link leads out of its folder, to '.*elsewhere'"):
        store_sae(tmp_path / "origin", tmp_path / "stored")


def test_an_sae_that_takes_anothers_place_leaves_what_that_was_linked_to(tmp_path: Path) -> None:
    """A borrowed SAE is the file of its owner, and to write there would be to change both."""
    for name, kind in (("first", "jumprelu"), ("second", "topk")):
        random_sae(tmp_path / name, kind)
    write_record(tmp_path / "first", {}, None, {})
    before = {name: (tmp_path / "first" / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    sizes = {"layers": 4, "hidden_size": 32, "attention_size": 32}
    write_json(tmp_path / "model.json", sizes)
    entry = {"source": {"borrowed": "first"}, "model": "m", "layer": 1, "site": "resid_post", "width": 96}
    sae_snapshots.store("s", entry, tmp_path / "stored", tmp_path / "first", tmp_path / "model.json")
    assert all((tmp_path / "stored" / name).samefile(tmp_path / "first" / name) for name in before)
    store_sae(tmp_path / "second", tmp_path / "stored")
    assert {name: (tmp_path / "first" / name).read_bytes() for name in before} == before
