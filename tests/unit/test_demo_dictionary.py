from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TopKTrainingSAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from tessera.demo import dictionary, language_model, requests, tokenizer
from tessera.errors import UserError
from tessera.files import canonical_json, read_json, sha256_file

TEXTS = [row["text"] for row in requests.generate(60, seed=1)]
SHAPE: dict[str, Any] = {"layer": 1, "width": 128, "steps": 300, "seed": 5, "threads": 1}
ARCHITECTURES: list[dictionary.Architecture] = ["standard", "topk", "batchtopk", "jumprelu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    tokenizer.train(TEXTS, 500, path / "tokenizer")
    language_model.train(
        TEXTS, path / "tokenizer", path / "tiny", hidden_size=32, layers=3, steps=40, seed=5, threads=1
    )
    return path / "tiny"


@pytest.fixture(scope="module")
def harvest(model: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return dictionary._harvest(model, TEXTS, 1, 5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_reconstructs_held_out_activations_sparsely(
    model: Path,
    harvest: tuple[torch.Tensor, torch.Tensor],
    tmp_path: Path,
    architecture: dictionary.Architecture,
) -> None:
    record = dictionary.train(model, TEXTS, tmp_path / "sae", architecture=architecture, **SHAPE)
    assert read_json(tmp_path / "sae/demo.json") == record
    assert record["explained_variance"] > 0.8
    assert 5 < record["l0"] < 40
    assert record["dead_fraction"] < 0.2

    sae = SAE.load_from_disk(tmp_path / "sae")
    held_out = harvest[1]
    with torch.no_grad():
        features = sae.encode(held_out)
        missed = (held_out - features @ sae.W_dec - sae.b_dec).square().sum(dim=1).mean()
    variance = held_out.var(dim=0, correction=0).sum()
    assert record["explained_variance"] == pytest.approx(1 - float(missed / variance), abs=1e-4)
    assert record["l0"] == pytest.approx((features != 0).sum(dim=1).double().mean().item())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_saved_sae_encodes_as_the_trained_one_and_needs_no_scaling(
    harvest: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, architecture: dictionary.Architecture
) -> None:
    training, held_out = harvest
    torch.manual_seed(0)
    sae = dictionary._sae(architecture, training.shape[1], 128, 60)
    dictionary._fit(sae, training, 60, 0)
    sae.save_inference_model(tmp_path)
    saved = SAE.load_from_disk(tmp_path)
    assert saved.cfg.normalize_activations == "none"
    torch.testing.assert_close(saved.W_dec.norm(dim=1), saved.W_dec[0].norm().expand(128))
    with torch.no_grad():
        if architecture == "batchtopk":
            # While training it picks the largest of a batch; what is saved compares with a threshold instead.
            reference = (held_out - sae.b_dec) @ sae.W_enc + sae.b_enc
            reference = reference * (reference > sae.topk_threshold)
        else:
            reference = sae.encode(held_out)
        torch.testing.assert_close(saved.encode(held_out), reference)
    assert (saved.encode(held_out) > 0).any(dim=1).all()


def test_a_topk_sae_has_its_number_of_features_in_every_token(
    model: Path, harvest: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    dictionary.train(model, TEXTS, tmp_path, architecture="topk", **SHAPE)
    active = (SAE.load_from_disk(tmp_path).encode(harvest[1]) > 0).sum(dim=1)
    assert active.max() == dictionary.ACTIVE
    assert (active == dictionary.ACTIVE).double().mean() > 0.95


def test_the_scale_of_a_layer_hardly_matters(harvest: tuple[torch.Tensor, torch.Tensor]) -> None:
    training, held_out = harvest
    health = []
    for scale in (1.0, 100.0):
        torch.manual_seed(0)
        sae = dictionary._sae("topk", training.shape[1], 128, 100)
        assert isinstance(sae, TopKTrainingSAE)
        dictionary._fit(sae, training * scale, 100, 0)
        health.append(dictionary._health(sae, training * scale, held_out * scale))
    assert health[0]["explained_variance"] == pytest.approx(health[1]["explained_variance"], abs=0.02)


def test_activations_are_those_of_one_text_at_a_time_without_special_tokens(
    model: Path, harvest: tuple[torch.Tensor, torch.Tensor]
) -> None:
    reference = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager").eval()
    encode = AutoTokenizer.from_pretrained(model)
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            states = reference(**encode(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        rows.append(states[1 + 1][0, 1:])  # after embedding and two layers, without BOS
    expected = torch.cat(rows)
    found = torch.cat(harvest)
    assert found.shape == expected.shape
    # Both harvests are sorted by length, the reference is in the order of the texts: compare as sets of rows.
    distances = torch.cdist(found[::37], expected, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values
    assert distances.max() < 1e-4


def test_held_out_texts_are_not_trained_on(model: Path) -> None:
    training, held_out = dictionary._harvest(model, TEXTS, 1, 5)
    again, others = dictionary._harvest(model, TEXTS, 1, 6)
    assert len(training) + len(held_out) == len(again) + len(others)
    assert 0.05 < len(held_out) / len(training) < 0.2
    assert held_out.shape != others.shape or not torch.equal(held_out, others)


def test_the_metadata_names_the_model_and_the_place(model: Path, tmp_path: Path) -> None:
    dictionary.train(model, TEXTS, tmp_path, architecture="jumprelu", **{**SHAPE, "steps": 5})
    config = read_json(tmp_path / "cfg.json")
    assert (tmp_path / "cfg.json").read_text() == canonical_json(config)
    assert config["metadata"]["model_name"] == "tiny"
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert config["metadata"]["prepend_bos"] is True
    assert (config["d_in"], config["d_sae"], config["architecture"]) == (32, 128, "jumprelu")
    assert {path.name for path in tmp_path.iterdir()} == {"cfg.json", "demo.json", "sae_weights.safetensors"}


def test_the_same_seed_gives_the_same_weights(model: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        torch.manual_seed(len(name))
        dictionary.train(model, TEXTS, tmp_path / name, architecture="topk", **{**SHAPE, "steps": 10, "seed": seed})
    one, two, three = (sha256_file(tmp_path / name / "sae_weights.safetensors") for name in ("one", "two", "three"))
    assert one == two != three


def test_a_layer_that_is_not_there_is_a_user_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="layer 3 is beyond its 3 layers"):
        dictionary.train(model, TEXTS, tmp_path, architecture="topk", **{**SHAPE, "layer": 3})
    assert not (tmp_path / "demo.json").exists()
