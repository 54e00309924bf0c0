"""Models and SAEs in canonical form: what is kept, what is recorded, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from saes_made import random_sae

from tessera import model_snapshots, sae_snapshots, snapshots
from tessera.errors import UserError
from tessera.files import read_json, write_json
from tessera.saes import Sae


def store_model(tmp_path: Path, origin: Path) -> dict[str, Any]:
    model_snapshots.store("m", {"folder": str(origin)}, tmp_path / "stored", origin)
    return read_json(tmp_path / "stored/revision.json")


def test_a_models_record_names_its_files_and_shapes(tmp_path: Path, tiny_model: Path) -> None:
    record = store_model(tmp_path, tiny_model)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(record["files"])
    assert (record["layers"], record["hidden_size"], record["model_type"]) == (4, 32, "gemma2")


def test_storing_a_model_twice_gives_the_same_record_and_leaves_no_stale_file(tmp_path: Path, tiny_model: Path) -> None:
    first = store_model(tmp_path, tiny_model)
    (tmp_path / "stored/stale.json").write_text("{}")
    assert store_model(tmp_path, tiny_model) == first


def test_what_is_stored_is_hashed_again_only_when_it_was_written_since(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_model(tmp_path, tiny_model)
    hashed: list[str] = []
    whole = snapshots.sha256_file
    monkeypatch.setattr(snapshots, "sha256_file", lambda path: hashed.append(Path(path).name) or whole(path))
    stored, config = tmp_path / "stored", tmp_path / "stored/config.json"
    snapshots.require_whole(stored)
    assert hashed == []
    content = config.read_bytes()
    config.unlink()
    config.write_bytes(content)
    for _ in range(2):
        snapshots.require_whole(stored)
        assert hashed == ["config.json"]
    config.write_bytes(content.replace(b"4", b"5", 1))
    with pytest.raises(UserError, match=r"config\.json: its content is not what revision\.json says"):
        snapshots.require_whole(stored)


def changed(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "origin"))


def test_pickled_weights_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    origin = changed(tmp_path, tiny_model)
    (origin / "model.safetensors").unlink()
    torch.save({}, origin / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"models\.m\.source: .*pytorch_model\.bin, a pickle.* Mend: save the model with"
    ):
        store_model(tmp_path, origin)
    assert not (tmp_path / "stored/pytorch_model.bin").exists()


def test_a_config_that_asks_for_code_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    origin = changed(tmp_path, tiny_model)
    config = json.loads((origin / "config.json").read_text())
    (origin / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(UserError, match="asks to run code"):
        store_model(tmp_path, origin)


@pytest.mark.parametrize(("missing", "word"), [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer")])
def test_a_folder_that_lacks_a_part_is_named(tmp_path: Path, tiny_model: Path, missing: str, word: str) -> None:
    origin = changed(tmp_path, tiny_model)
    (origin / missing).unlink()
    with pytest.raises(UserError, match=word):
        store_model(tmp_path, origin)


def store_sae(tmp_path: Path, kind: str = "jumprelu", **entry: Any) -> dict[str, Any]:
    random_sae(tmp_path / "origin", kind, layer=1)
    sizes = {"layers": entry.pop("depth", 4), "hidden_size": entry.pop("hidden", 32), "attention_size": 32}
    write_json(tmp_path / "model.json", sizes)
    source = {"folder": str(tmp_path / "origin")}
    entry = {"source": source, "model": "m", "layer": 1, "site": "resid_post", "width": 96, **entry}
    sae_snapshots.store("s", entry, tmp_path / "stored", tmp_path / "origin", tmp_path / "model.json")
    return read_json(tmp_path / "stored/revision.json")


def test_a_stored_sae_encodes_as_the_one_it_came_from(tmp_path: Path) -> None:
    record = store_sae(tmp_path)
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    ours, origin = (Sae(tmp_path / name, "saes.s").encode(x) for name in ("stored", "origin"))
    assert torch.equal(ours.indices, origin.indices)
    assert torch.equal(ours.values, origin.values)
    assert (record["architecture"], record["d_in"], record["d_sae"]) == ("jumprelu", 32, 96)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"layer": 2}, "saes.s.layer: the SAE reads layer 1, not 2"),
        ({"width": 97}, "saes.s.width: the SAE has 96 features, not 97"),
        ({"depth": 1}, "saes.s.layer: layer 1 is beyond the 1 layers of 'm'"),
        ({"hidden": 64}, "saes.s.model: the SAE reads vectors of 32, and 'm' has 64"),
    ],
)
def test_an_sae_that_does_not_fit_is_one_line(tmp_path: Path, entry: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        store_sae(tmp_path, **entry)
    assert str(caught.value).startswith(line)


def test_a_folder_that_sae_lens_did_not_save_is_named(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    write_json(tmp_path / "model.json", {"layers": 4, "hidden_size": 32})
    entry = {"source": {"folder": "origin"}, "model": "m", "layer": 1, "width": 96}
    with pytest.raises(UserError, match=r"saes\.s\.source\.folder: .* has no cfg\.json"):
        sae_snapshots.store("s", entry, tmp_path / "stored", tmp_path / "origin", tmp_path / "model.json")


def test_an_sae_with_values_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    sae = random_sae(tmp_path / "origin", "jumprelu")
    with torch.no_grad():
        sae.W_dec[0, 0] = torch.nan
    sae.save_model(tmp_path / "origin")
    with pytest.raises(UserError, match="tensor W_dec holds values that are not finite"):
        Sae(tmp_path / "origin", "saes.s").check_finite("saes.s")
