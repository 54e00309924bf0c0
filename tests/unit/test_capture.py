"""A capture against the slow, plain way: one example at a time through Hugging Face, and `SAE.encode`."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from saes_made import random_sae
from transformers import AutoModelForCausalLM, AutoTokenizer
from worlds import TEXTS

from tessera import capture, controls, passes, precision, shards
from tessera.capture import Effort, Reading
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json, write_json
from tessera.plan import Head, hidden_head, token_head

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


def run(folder: Path, model: Path, root: Path, texts=tuple(TEXTS), heads=tuple(HEADS), **changes) -> dict:
    capture.run(
        folder,
        model=("tiny", model, "m" * 64),
        heads=heads,
        table=table(list(texts)),
        **{
            "saes": {head.sae: (root / head.sae, "s" * 64) for head in heads if head.sae},
            "dataset_sha256": "d" * 64,
            "reading": READING,
            "effort": EFFORT,
        }
        | changes,
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
        expected = torch.cat([saes[1][name].encode(one_at_a_time(tiny_model, text, layer)) for text in TEXTS])
        np.testing.assert_allclose(dense(features), expected.detach().numpy(), atol=1e-4)


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
    run(tmp_path, tiny_model, saes[0], texts=["long " * 200, "b"], reading=replace(READING, max_length=5000))
    assert shards.read_sae(tmp_path, "jump").tokens[0] == 63


def test_a_text_of_nothing_but_special_tokens_is_named(tmp_path, tiny_model, saes) -> None:
    with pytest.raises(UserError, match=r"example 'e1': it has no token .* Mend: remove it from the dataset"):
        run(tmp_path, tiny_model, saes[0], texts=["fine", "<eos>"])


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
    original = capture.LanguageModel.read
    monkeypatch.setattr(
        capture.LanguageModel, "read", lambda self, batch: passes.append(len(batch)) or original(self, batch)
    )
    assert run(tmp_path / "b", tiny_model, saes[0]) == whole
    assert 0 < sum(passes) < len(TEXTS)


def test_shards_of_other_inputs_are_not_trusted(tmp_path, tiny_model, saes) -> None:
    first = run(tmp_path, tiny_model, saes[0])
    changed = [*TEXTS[:-1], "entirely different words here but with as many characters"]
    second = run(tmp_path, tiny_model, saes[0], texts=changed, dataset_sha256="e" * 64)
    assert second["shards"]["jump"] != first["shards"]["jump"]


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
    original = capture.LanguageModel.read

    def broken(self, batch):
        states = original(self, batch)
        states[1, "resid_post"][0, -1] = torch.inf
        return states

    monkeypatch.setattr(capture.LanguageModel, "read", broken)
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
    assert (health["explained_variance_tokens"], health["flipped_share"]) == (len(x), None)


def test_explained_variance_of_many_tokens_is_measured_on_a_sample(tmp_path, tiny_model, saes, monkeypatch) -> None:
    monkeypatch.setattr(capture, "GAUGED", 60)
    health = run(tmp_path, tiny_model, saes[0], texts=TEXTS * 5)["heads"]["jump"]["health"]
    rows = capture.spread(capture.tokenize(*opened(tiny_model, TEXTS * 5)), 60)
    x = torch.cat([one_at_a_time(tiny_model, (TEXTS * 5)[row], 1) for row in rows])
    sae = saes[1]["jump"]
    left = ((x - sae.decode(sae.encode(x)).detach()) ** 2).sum()
    assert health["explained_variance_tokens"] == len(x) < health["tokens"] / 2
    assert health["explained_variance"] == pytest.approx(float(1 - left / ((x - x.mean(dim=0)) ** 2).sum()), rel=1e-3)


def opened(model: Path, texts: list[str]):
    kept = {"dtype": "float32", "attention": "eager", "device": "cpu", "key": "models.tiny"}
    return capture.LanguageModel(model, places=[(1, "resid_post")], **kept), table(texts), READING.max_length


# --- heads of other kinds ------------------------------------------------------------------------------------------


def test_every_tokens_hidden_states_are_kept_on_demand(tmp_path, tiny_model, saes) -> None:
    manifest = run(tmp_path, tiny_model, saes[0], heads=[token_head(3)])
    states, tokens = shards.read_states(tmp_path, "layer-3-tokens")
    assert manifest["heads"]["layer-3-tokens"] == {"kind": "states", "layer": 3, "site": "resid_post", "size": 32}
    expected = [one_at_a_time(tiny_model, text, 3) for text in TEXTS]
    assert tokens.tolist() == list(map(len, expected))
    np.testing.assert_allclose(states, torch.cat(expected).numpy(), atol=2e-5)


def test_saes_of_other_sites_read_there(tmp_path, tiny_model) -> None:
    hooks = {"pre": "hook_resid_pre", "mlp": "hook_mlp_out", "attn": "attn.hook_z"}
    made = {name: random_sae(tmp_path / name, "standard", layer=2, hook=hook) for name, hook in hooks.items()}
    sites = {"pre": "resid_pre", "mlp": "mlp_out", "attn": "attn_z"}
    manifest = run(tmp_path / "c", tiny_model, tmp_path, heads=[Head(n, 2, n, site) for n, site in sites.items()])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager", dtype=torch.float32)
    block = model.model.layers[2]
    caught = {}
    model.model.layers[1].register_forward_hook(lambda module, given, output: caught.update(pre=output[0]))
    block.post_feedforward_layernorm.register_forward_hook(lambda module, given, output: caught.update(mlp=output[0]))
    block.self_attn.o_proj.register_forward_hook(lambda module, given, output: caught.update(attn=given[0][0]))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    given = {name: [] for name in hooks}
    for text in TEXTS:
        with torch.inference_mode():
            model(input_ids=torch.tensor([[1, *tokenizer(text)["input_ids"]][:40]]))
        for name, states in caught.items():
            given[name].append(states[1:])
    for name, sae in made.items():
        assert manifest["heads"][name]["site"] == sites[name]
        expected = sae.encode(torch.cat(given[name])).detach().numpy()
        np.testing.assert_allclose(dense(shards.read_sae(tmp_path / "c", name)), expected, atol=1e-4)


def test_an_encoder_that_does_not_fit_the_card_gives_the_same(tmp_path, tiny_model, saes, monkeypatch) -> None:
    run(tmp_path / "a", tiny_model, saes[0])
    size = 32 * 96 * 4
    monkeypatch.setattr(passes, "_room", lambda device: 1.5 * size)
    seen = []
    original = passes.Sae
    monkeypatch.setattr(
        passes, "Sae", lambda *given, resident: seen.append(resident) or original(*given, resident=resident)
    )
    run(tmp_path / "b", tiny_model, saes[0])
    assert sorted(seen) == [False, True]
    for name in ("jump", "top"):
        a, b = (shards.read_sae(tmp_path / x, name) for x in "ab")
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)
    # The sample and the lengths go along.
    health_a, health_b = (read_json(tmp_path / x / "manifest.json")["heads"]["top"]["health"] for x in "ab")
    assert health_a.pop("flipped_share") is health_b.pop("flipped_share") is None
    assert health_a == pytest.approx(health_b, rel=1e-4)


@pytest.mark.parametrize("together", [True, False])
def test_a_control_has_in_each_token_as_many_features_as_its_sae(tmp_path, tiny_model, saes, together) -> None:
    for name in ("jump", "top"):
        shutil.copytree(saes[0] / name, tmp_path / name)
        controls.write(tmp_path / name, tmp_path / f"{name}-random", seed=1)
    layers = {"jump": 1, "top": 3}
    heads = [Head(f"{name}-random", layer, f"{name}-random", matched=name) for name, layer in layers.items()]
    own = [Head(name, layer, name) for name, layer in layers.items()]
    known = {name: (tmp_path / name, "s" * 64) for head in heads for name in head.saes}
    given = [*heads, *(own if together else [])]
    manifest = run(tmp_path / "c", tiny_model, tmp_path, heads=given, saes=known)
    run(tmp_path / "own", tiny_model, tmp_path, heads=own)
    for name in layers:
        control, matched = shards.read_sae(tmp_path / "c", f"{name}-random"), shards.read_sae(tmp_path / "own", name)
        # An SAE that has more than half of its features active leaves too few random ones above zero.
        np.testing.assert_array_equal(control.counts, np.minimum(matched.counts, control.counts))
        assert name == "jump" or (control.counts == matched.counts).all()
        assert active(control) != active(matched)
        assert manifest["heads"][f"{name}-random"]["architecture"] == "random"


# --- memory and precision ------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_says_so_and_goes_on(tmp_path, tiny_model, saes, monkeypatch, caplog) -> None:
    whole = run(tmp_path / "a", tiny_model, saes[0], effort=Effort("cpu", 4096, 4096))
    original, sizes = capture.LanguageModel.read, []

    def read(self, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(self, batch)

    monkeypatch.setattr(capture.LanguageModel, "read", read)
    halved = run(tmp_path / "b", tiny_model, saes[0], effort=Effort("cpu", 4096, 4096))
    assert sizes[:2] == [6, 3]
    assert max(sizes[2:]) <= 2
    assert "going on with half as many" in caplog.text
    assert halved["tokens"] == whole["tokens"]
    a, b = (shards.read_sae(tmp_path / x, "jump") for x in "ab")
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_allclose(a.values, b.values, atol=1e-4)


def test_a_text_that_does_not_fit_the_memory_alone_is_named(tmp_path, tiny_model, saes, monkeypatch) -> None:
    def read(self, batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(capture.LanguageModel, "read", read)
    with pytest.raises(UserError, match=r"example 'e\d': its \d+ tokens alone do not fit the memory"):
        run(tmp_path, tiny_model, saes[0])


def test_errors_that_are_not_about_memory_are_not_taken_for_it(tmp_path, tiny_model, saes, monkeypatch) -> None:
    monkeypatch.setattr(capture.LanguageModel, "read", lambda self, batch: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        run(tmp_path, tiny_model, saes[0])


def test_half_precision_records_how_many_features_flip(tmp_path, tiny_model, saes) -> None:
    manifest = run(tmp_path, tiny_model, saes[0], reading=replace(READING, dtype="bfloat16"))
    exact = run(tmp_path / "exact", tiny_model, saes[0])
    for name in ("jump", "top"):
        half, full = (active(shards.read_sae(folder, name)) for folder in (tmp_path, tmp_path / "exact"))
        share = len(half ^ full) / len(full)
        assert 0 < share < 0.5
        # All texts are in the sample, and what is read again in float32 is what a float32 capture reads.
        assert manifest["heads"][name]["health"]["flipped_share"] == pytest.approx(share)
        assert exact["heads"][name]["health"]["flipped_share"] is None


def active(features) -> set[tuple[int, int]]:
    tokens = np.repeat(np.arange(len(features.counts)), features.counts)
    return set(zip(tokens.tolist(), features.indices.tolist(), strict=True))


def dense(features) -> np.ndarray:
    matrix = np.zeros((len(features.counts), features.width), dtype=np.float32)
    matrix[np.repeat(np.arange(len(features.counts)), features.counts), features.indices] = features.values
    return matrix


def test_weights_are_as_stored_after_a_reading_in_float32(tiny_model) -> None:
    model = capture.LanguageModel(
        tiny_model, places=[(3, "attn_z")], dtype="bfloat16", attention="eager", device="cpu", key=""
    )
    before = {name: parameter.clone() for name, parameter in model.model.named_parameters()}
    batch = model.tokenize(TEXTS[:2], 40)
    with precision.in_float32(model):
        (states,) = model.read(batch).values()
    assert states.dtype == torch.float32
    for name, parameter in model.model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, before[name])


def test_an_sae_of_a_centred_model_needs_a_model_that_centres(tmp_path, tiny_model) -> None:
    random_sae(tmp_path / "c", "standard")
    raw = read_json(tmp_path / "c/cfg.json")
    raw["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    write_json(tmp_path / "c/cfg.json", raw)
    with pytest.raises(UserError, match=r"saes\.c: it was trained on a model whose residual stream was centred"):
        run(tmp_path / "out", tiny_model, tmp_path, heads=[Head("c", 1, "c")])


def test_the_engine_imports_none_of_what_takes_seconds() -> None:
    code = "import sys, tessera.capture; print({'pandas', 'sae_lens', 'transformer_lens', 'datasets', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
