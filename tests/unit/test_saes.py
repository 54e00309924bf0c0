"""Our encoder against sae-lens's own, on random SAEs of every architecture."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from saes_made import KINDS, random_sae
from transformers import GPT2Config, GPT2Model

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
@pytest.mark.parametrize("block", [(50, 96), (7, 10)])
@pytest.mark.parametrize("resident", [True, False])
def test_encode_equals_sae_lens(
    tmp_path: Path, kind: str, normalize: str, apply_b_dec: bool, block: tuple[int, int], resident: bool
) -> None:
    theirs = random_sae(tmp_path, kind, normalize_activations=normalize, apply_b_dec_to_input=apply_b_dec)
    ours = Sae(tmp_path, "saes.x", resident=resident)
    expected = theirs.encode(X)
    found = ours.encode(X, block)
    assert found.counts.sum() > 100
    torch.testing.assert_close(dense(found, 96), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(dense(found, 96) > 0, expected > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_decode_equals_sae_lens(tmp_path: Path, kind: str) -> None:
    theirs = random_sae(tmp_path, kind)
    ours = Sae(tmp_path, "saes.x")
    torch.testing.assert_close(ours.decode(ours.encode(X)), theirs.decode(theirs.encode(X)), atol=1e-4, rtol=1e-4)


def test_indices_ascend_within_a_token(tmp_path: Path) -> None:
    random_sae(tmp_path, "topk")
    found = Sae(tmp_path, "saes.x").encode(X, (7, 10))
    for part in torch.split(found.indices, found.counts.tolist()):
        assert torch.equal(part, part.sort().values)


WIDE = """
import sys, torch
from pathlib import Path
from tessera.saes import Sae

def held():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024

sae, x = Sae(Path(sys.argv[1]), "wide"), torch.randn(1024, 8)
before = held()
found = sae.encode(x)
assert len(found.counts)
print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["jumprelu", "gated", "topk"])
def test_memory_does_not_grow_with_the_width(tmp_path: Path, kind: str) -> None:
    sae = random_sae(tmp_path / "sae", kind, d_in=8, d_sae=1 << 18)
    with torch.no_grad():
        # Few features are active, as in an SAE that has learned something.
        for name, value in (("threshold", 12.0), ("b_gate", -12.0)):
            if hasattr(sae, name):
                getattr(sae, name).fill_(value)
    sae.save_model(tmp_path / "sae")
    done = subprocess.run(
        [sys.executable, "-c", WIDE, str(tmp_path / "sae")], capture_output=True, text=True, check=True
    )
    # 1,024 x 262,144 numbers would be 1,024 MB.
    assert float(done.stdout) < 100


@pytest.mark.parametrize(
    ("hook", "site"),
    [("hook_resid_pre", "resid_pre"), ("hook_mlp_out", "mlp_out"), ("attn.hook_z", "attn_z")],
)
def test_the_hook_says_where_it_reads(tmp_path: Path, hook: str, site: str) -> None:
    random_sae(tmp_path, "standard", layer=3, hook=hook)
    config = Sae(tmp_path, "saes.x").config
    assert (config.layer, config.site) == (3, site)


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_of_some_tokens_decode_to_those_tokens(tmp_path: Path, kind: str) -> None:
    random_sae(tmp_path, kind)
    sae = Sae(tmp_path, "saes.x")
    features, some = sae.encode(X), torch.tensor([0, 3, 49])
    torch.testing.assert_close(sae.decode(features.of(some)), sae.decode(features)[some])


def test_an_sae_of_a_centred_model_is_given_a_centred_residual(tmp_path: Path) -> None:
    # The reference centres the weights that write into the residual stream, as the SAE's training did.
    theirs = random_sae(tmp_path, "standard")
    change(tmp_path, model_from_pretrained_kwargs={"center_writing_weights": True, "fold_ln": True})
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=20, initializer_range=0.3)
    plain = GPT2Model(config).eval()
    centred = copy.deepcopy(plain)
    with torch.no_grad():
        for embedding in (centred.wte, centred.wpe):
            embedding.weight -= embedding.weight.mean(dim=1, keepdim=True)
        for block in centred.h:
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                projection.weight -= projection.weight.mean(dim=1, keepdim=True)
                projection.bias -= projection.bias.mean()
        ids = torch.arange(12)[None]
        given = plain(ids, output_hidden_states=True).hidden_states[1][0]
        expected = theirs.encode(centred(ids, output_hidden_states=True).hidden_states[1][0])
    found = Sae(tmp_path, "saes.x").encode(given)
    assert not torch.allclose(theirs.encode(given), expected, atol=0.05)
    torch.testing.assert_close(dense(found, 96), expected, atol=1e-4, rtol=1e-4)


def test_attention_saes_need_no_centring_and_other_processing_is_refused(tmp_path: Path) -> None:
    random_sae(tmp_path, "standard", hook="attn.hook_z")
    change(tmp_path, model_from_pretrained_kwargs={"fold_ln": True, "center_unembed": True})
    assert not Sae(tmp_path, "saes.x").config.centred
    change(tmp_path, model_from_pretrained_kwargs={"fold_value_biases": True})
    with pytest.raises(UserError, match="fold_value_biases"):
        Sae(tmp_path, "saes.x")


IN_METADATA = ("hook_name", "hook_head_index", "model_from_pretrained_kwargs")


def change(folder: Path, **values: object) -> None:
    raw = json.loads((folder / "cfg.json").read_text())
    for key, value in values.items():
        (raw["metadata"] if key in IN_METADATA else raw)[key] = value
    (folder / "cfg.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"architecture": "temporal"}, "temporal"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"reshape_activations": "hook_z"}, "hook_z"),
        ({"new_trick": 3}, "new_trick"),
        ({"hook_name": "blocks.1.hook_mlp_in"}, "hook_mlp_in"),
        ({"hook_name": None}, "does not say which place of the model it reads. Mend: save it again"),
        ({"hook_head_index": 2}, "head 2"),
        ({"model_from_pretrained_kwargs": {"fold_value_biases": True}}, "fold_value_biases"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, asked: dict, word: str) -> None:
    random_sae(tmp_path, "standard")
    change(tmp_path, **asked)
    with pytest.raises(UserError, match=word):
        Sae(tmp_path, "saes.x")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    random_sae(tmp_path, "standard")
    change(tmp_path, d_sae=97)
    with pytest.raises(UserError, match=r"tensor W_dec has shape \(96, 32\) where the config says \(97, 32\)"):
        Sae(tmp_path, "saes.x")
