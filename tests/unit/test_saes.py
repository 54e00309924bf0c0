"""Our encoder against sae-lens's own, on random SAEs of every architecture."""

import json
from pathlib import Path

import pytest
import torch
from saes_made import KINDS, random_sae

from tessera.errors import UserError
from tessera.saes import Features, Sae

X = torch.randn(50, 32, generator=torch.Generator().manual_seed(3)) * 2


def dense(features: Features, width: int) -> torch.Tensor:
    rows = torch.repeat_interleave(torch.arange(len(features.counts)), features.counts)
    matrix = torch.zeros(len(features.counts), width)
    matrix[rows, features.indices] = features.values
    return matrix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize("chunk", [96, 10])
def test_encode_equals_sae_lens(tmp_path: Path, kind: str, normalize: str, apply_b_dec: bool, chunk: int) -> None:
    theirs = random_sae(tmp_path, kind, normalize_activations=normalize, apply_b_dec_to_input=apply_b_dec)
    ours = Sae.load(tmp_path, "saes.x")
    expected = theirs.encode(X)
    found = ours.encode(X, chunk=chunk)
    assert found.counts.sum() > 100
    torch.testing.assert_close(dense(found, 96), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(dense(found, 96) > 0, expected > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_decode_equals_sae_lens(tmp_path: Path, kind: str) -> None:
    theirs = random_sae(tmp_path, kind)
    ours = Sae.load(tmp_path, "saes.x")
    torch.testing.assert_close(ours.decode(ours.encode(X)), theirs.decode(theirs.encode(X)), atol=1e-4, rtol=1e-4)


def test_indices_ascend_within_a_token(tmp_path: Path) -> None:
    random_sae(tmp_path, "topk")
    found = Sae.load(tmp_path, "saes.x").encode(X, chunk=10)
    for part in torch.split(found.indices, found.counts.tolist()):
        assert torch.equal(part, part.sort().values)


def test_a_resid_pre_sae_reads_the_layer_before(tmp_path: Path) -> None:
    random_sae(tmp_path, "standard", layer=3, hook="hook_resid_pre")
    assert Sae.load(tmp_path, "saes.x").config.layer == 2


def change(folder: Path, **values: object) -> None:
    raw = json.loads((folder / "cfg.json").read_text())
    for key, value in values.items():
        (raw["metadata"] if key in ("hook_name", "model_from_pretrained_kwargs") else raw)[key] = value
    (folder / "cfg.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"architecture": "temporal"}, "temporal"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"reshape_activations": "hook_z"}, "hook_z"),
        ({"new_trick": 3}, "new_trick"),
        ({"hook_name": "blocks.1.hook_mlp_out"}, "hook_mlp_out"),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "center_writing_weights"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, asked: dict, word: str) -> None:
    random_sae(tmp_path, "standard")
    change(tmp_path, **asked)
    with pytest.raises(UserError, match=word):
        Sae.load(tmp_path, "saes.x")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    random_sae(tmp_path, "standard")
    change(tmp_path, d_sae=97)
    with pytest.raises(UserError, match=r"tensor W_dec has shape \(96, 32\) where the config says \(97, 32\)"):
        Sae.load(tmp_path, "saes.x")
