"""A capture against the slow, plain way: one example at a time through Hugging Face, and `SAE.encode`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEXTS
from saes_made import random_sae
from transformers import AutoModelForCausalLM, AutoTokenizer

from tessera import capture, shards
from tessera.capture import Effort, Reading
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json
from tessera.plan import Head, hidden_head

READING = Reading(dtype="float32", attention="eager", max_length=40)
EFFORT = Effort(device="cpu", batch_tokens=64, shard_tokens=40)
HEADS = [hidden_head(0), hidden_head(3), Head("jump", 1, "jump"), Head("top", 3, "top")]


def table(texts: list[str]) -> Table:
    n = len(texts)
    words = np.array(["a"] * n, dtype=object)
    return Table([f"e{i}" for i in range(n)], texts, None, words, words, [None] * n, np.arange(n))


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("saes")
    made = {
        "jump": random_sae(root / "jump", "jumprelu", layer=1),
        "top": random_sae(root / "top", "topk", layer=3),
    }
    return root, made


def run(folder: Path, model: Path, root: Path, texts=tuple(TEXTS), effort: Effort = EFFORT, heads=tuple(HEADS)) -> dict:
    capture.run(
        folder,
        model=("tiny", model, "m" * 64),
        saes={head.sae: (root / head.sae, "s" * 64) for head in heads if head.sae},
        heads=heads,
        table=table(list(texts)),
        dataset_sha256="d" * 64,
        reading=READING,
        effort=effort,
    )
    return read_json(folder / "manifest.json")


@torch.inference_mode()
def one_at_a_time(model_folder: Path, text: str, layer: int) -> torch.Tensor:
    """The content tokens' outputs of a layer, by the model's own hidden states; BOS is prepended and left out."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager", dtype=torch.float32)
    ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]][: READING.max_length]
    found = {}
    model.model.layers[layer].register_forward_hook(lambda module, given, output: found.update(states=output))
    model(input_ids=torch.tensor([ids]))
    return found["states"][0, 1:]


def test_hidden_states_equal_one_example_at_a_time(tmp_path, tiny_model, saes) -> None:
    run(tmp_path, tiny_model, saes[0])
    for layer in (0, 3):
        found = {p: shards.read_hidden(tmp_path, f"layer-{layer}", p) for p in ("last", "mean", "max")}
        for row, text in enumerate(TEXTS):
            states = one_at_a_time(tiny_model, text, layer).numpy()
            expected = {"last": states[-1], "mean": states.mean(axis=0), "max": states.max(axis=0)}
            for pooling, value in expected.items():
                np.testing.assert_allclose(found[pooling][row], value, atol=2e-5)


def test_sae_features_equal_sae_lens_one_example_at_a_time(tmp_path, tiny_model, saes) -> None:
    run(tmp_path, tiny_model, saes[0])
    for name, layer in (("jump", 1), ("top", 3)):
        features = shards.read_sae(tmp_path, name)
        rows = np.repeat(np.arange(len(features.counts)), features.counts)
        dense = np.zeros((len(features.counts), features.width), dtype=np.float32)
        dense[rows, features.indices] = features.values
        expected = torch.cat([saes[1][name].encode(one_at_a_time(tiny_model, text, layer)) for text in TEXTS])
        np.testing.assert_allclose(dense, expected.detach().numpy(), atol=1e-4)


def test_batch_and_shard_sizes_leave_no_trace_but_float_noise(tmp_path, tiny_model, saes) -> None:
    run(tmp_path / "a", tiny_model, saes[0])
    run(tmp_path / "b", tiny_model, saes[0], effort=Effort("cpu", batch_tokens=4096, shard_tokens=4096))
    a, b = (shards.read_sae(tmp_path / x, "jump") for x in "ab")
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_allclose(a.values, b.values, atol=1e-4)


def test_twice_the_same_inputs_give_the_same_bytes(tmp_path, tiny_model, saes) -> None:
    assert run(tmp_path / "a", tiny_model, saes[0]) == run(tmp_path / "b", tiny_model, saes[0])


def test_long_texts_are_cut_and_counted(tmp_path, tiny_model, saes) -> None:
    manifest = run(tmp_path, tiny_model, saes[0], texts=["short", "long " * 200])
    assert manifest["truncated"] == {"count": 1, "examples": ["e1"]}
    assert shards.read_sae(tmp_path, "jump").tokens[1] == READING.max_length - 1


def test_a_text_longer_than_the_models_context_is_cut_there(tmp_path, tiny_model, saes) -> None:
    heads = [Head("jump", 1, "jump")]
    capture.run(
        tmp_path,
        model=("tiny", tiny_model, ""),
        saes={"jump": (saes[0] / "jump", "")},
        heads=heads,
        table=table(["long " * 200, "b"]),
        dataset_sha256="",
        reading=replace(READING, max_length=5000),
        effort=EFFORT,
    )
    assert shards.read_sae(tmp_path, "jump").tokens[0] == 63


def test_a_resumed_capture_computes_only_what_is_missing_and_has_the_same_bytes(
    tmp_path, tiny_model, saes, monkeypatch
) -> None:
    whole = run(tmp_path / "a", tiny_model, saes[0])
    run(tmp_path / "b", tiny_model, saes[0])
    (tmp_path / "b" / "manifest.json").unlink()
    damaged = tmp_path / "b" / "jump" / "part-00001.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 1
    damaged.write_bytes(content)
    (tmp_path / "b" / "top" / "part-00000.parquet").unlink()
    passes = []
    original = capture.LanguageModel.residuals
    monkeypatch.setattr(
        capture.LanguageModel, "residuals", lambda self, batch: passes.append(len(batch)) or original(self, batch)
    )
    assert run(tmp_path / "b", tiny_model, saes[0]) == whole
    assert 0 < sum(passes) < len(TEXTS)


def test_shards_of_other_inputs_are_not_trusted(tmp_path, tiny_model, saes) -> None:
    first = run(tmp_path, tiny_model, saes[0])
    changed = [*TEXTS[:-1], "entirely different words here but with as many characters"]
    capture.run(
        tmp_path,
        model=("tiny", tiny_model, "m" * 64),
        saes={"jump": (saes[0] / "jump", "s" * 64)},
        heads=[Head("jump", 1, "jump")],
        table=table(changed),
        dataset_sha256="e" * 64,
        reading=READING,
        effort=EFFORT,
    )
    assert read_json(tmp_path / "manifest.json")["shards"]["jump"] != first["shards"]["jump"]


def test_verify_names_what_is_damaged(tmp_path, tiny_model, saes) -> None:
    run(tmp_path, tiny_model, saes[0])
    assert shards.verify(tmp_path) == []
    cut = tmp_path / "jump" / "part-00000.parquet"
    cut.write_bytes(cut.read_bytes()[:-10])
    (tmp_path / "layer-0" / "part-00001.parquet").unlink()
    problems = shards.verify(tmp_path)
    assert len(problems) == 2
    assert any("jump/part-00000.parquet" in p for p in problems)
    assert any("layer-0/part-00001.parquet: missing" in p for p in problems)
    with pytest.raises(UserError, match=r"part-00000\.parquet"):
        shards.read_sae(tmp_path, "jump")


def test_values_that_are_not_finite_stop_it_and_name_the_example(tmp_path, tiny_model, saes, monkeypatch) -> None:
    original = capture.LanguageModel.residuals

    def broken(self, batch):
        states = original(self, batch)
        states[1][0, -1] = torch.inf
        return states

    monkeypatch.setattr(capture.LanguageModel, "residuals", broken)
    with pytest.raises(UserError, match=r"example 'e\d': layer 1 .*float32"):
        run(tmp_path, tiny_model, saes[0])
    assert not (tmp_path / "manifest.json").exists()


def test_health_is_what_the_plain_formulas_give(tmp_path, tiny_model, saes) -> None:
    health = run(tmp_path, tiny_model, saes[0])["heads"]["jump"]["health"]
    x = torch.cat([one_at_a_time(tiny_model, text, 1) for text in TEXTS])
    sae = saes[1]["jump"]
    features = sae.encode(x).detach()
    left = ((x - sae.decode(features).detach()) ** 2).sum()
    assert health["tokens"] == len(x)
    assert health["l0"] == pytest.approx(float((features > 0).sum(dim=1).float().mean()))
    assert health["dead_fraction"] == pytest.approx(float((features == 0).all(dim=0).float().mean()))
    assert health["explained_variance"] == pytest.approx(float(1 - left / ((x - x.mean(dim=0)) ** 2).sum()), rel=1e-4)
    assert health["norm_max"] == pytest.approx(float(x.norm(dim=1).max()), rel=1e-5)
