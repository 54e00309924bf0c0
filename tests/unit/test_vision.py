"""Images through vision-language models, against one image at a time through the plain model and its own processor."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from models_made import LANGUAGE, SHAPE, SPECIAL, TOWER, copied, paligemma, png, saved
from PIL import Image
from saes_made import random_sae
from transformers import AddedToken, AutoProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from worlds import TEXTS

from tessera import capture, model_snapshots, precision, shards
from tessera.capture import Effort, Reading
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json
from tessera.models import LanguageModel
from tessera.plan import Head, hidden_head, token_head, vision_head

DEPTH = SHAPE["num_hidden_layers"]
READING = Reading(dtype="float32", attention="eager", max_length=40)
EFFORT = Effort(device="cpu", batch_tokens=64, shard_tokens=90)
HEADS = [hidden_head(0), hidden_head(2), Head("sae", 1, "sae"), vision_head()]


def llava(folder: Path, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Any:
    own = copied(tokenizer, folder)
    own.add_special_tokens({"additional_special_tokens": [AddedToken("<image>", special=True, normalized=False)]})
    strategy = changes.get("vision_feature_select_strategy", "default")
    processor = transformers.LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        own,
        patch_size=4,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
    )
    text = transformers.LlamaConfig(**LANGUAGE, **SPECIAL)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER),
        text_config=text,
        image_token_index=processor.image_token_id,
        **changes,
    )
    return saved(transformers.LlavaForConditionalGeneration, config, processor, folder)


MAKERS = {"paligemma": paligemma, "llava": llava}


@pytest.fixture(scope="module", params=MAKERS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast
) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, MAKERS[request.param](folder, tiny_tokenizer)


def drawn(number: int) -> list[bytes]:
    """Images of other sizes and shapes than the models'."""
    rng = np.random.default_rng(7)
    sizes = [(16, 16), (31, 20), (9, 40)]
    return [
        png(Image.fromarray(rng.integers(0, 256, (*sizes[i % 3], 3), dtype=np.uint8).repeat(2, axis=0)))
        for i in range(number)
    ]


def table(images: Sequence[bytes] | None = None, texts: Sequence[str] | None = None) -> Table:
    n = len(images or texts or [])
    words = np.array(["a"] * n, dtype=object)
    given = (list(texts) if texts else None), (list(images) if images else None)
    return Table([f"e{i}" for i in range(n)], *given, words, words, [None] * n, np.arange(n))


def run(folder: Path, model: Path, given: Table, heads: Sequence[Head] = tuple(HEADS), **changes: Any) -> Any:
    if not (folder.parent / "sae").exists():
        random_sae(folder.parent / "sae", "jumprelu", layer=1)
    capture.run(
        folder,
        model=("tiny", model, "m" * 64),
        heads=heads,
        table=given,
        **{
            "saes": {"sae": (folder.parent / "sae", "s" * 64)} if any(head.sae for head in heads) else {},
            "dataset_sha256": "d" * 64,
            "reading": READING,
            "effort": EFFORT,
        }
        | changes,
    )
    return read_json(folder / "manifest.json")


@torch.inference_mode()
def plain(folder: Path, model: Any, encoded: bytes) -> dict[Any, torch.Tensor]:
    """Block outputs at the image positions, by layer, and the features the projector is made to see."""
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    given = processor(images=[image], text=["<image>"])
    kept = {name: torch.tensor(given[name]) for name in ("input_ids", "attention_mask")}
    kept["pixel_values"] = torch.stack([torch.tensor(pixels) for pixels in given["pixel_values"]])
    if model.config.model_type == "paligemma":
        kept["token_type_ids"] = torch.tensor(given["token_type_ids"])
    else:
        kept["input_ids"] = torch.cat([torch.tensor([[1]]), kept["input_ids"]], dim=1)
        kept["attention_mask"] = torch.ones_like(kept["input_ids"])
    found: dict[Any, torch.Tensor] = {}
    blocks = model.model.language_model.layers
    places = kept["input_ids"][0] == model.config.image_token_id
    hooks = [
        block.register_forward_hook(lambda _, args, output, at=layer: found.update({at: output[0, places]}))
        for layer, block in enumerate(blocks)
    ]
    model(**kept)
    for hook in hooks:
        hook.remove()
    tower = model.model.vision_tower(kept["pixel_values"], output_hidden_states=True)
    if model.config.model_type == "paligemma":
        found["vision"] = tower.last_hidden_state[0]
    else:
        found["vision"] = tower.hidden_states[-2][0, 1:]
    return found


# --- captures ------------------------------------------------------------------------------------------------------


def test_a_batched_capture_of_images_equals_one_image_at_a_time(tmp_path: Path, made: tuple[Path, Any]) -> None:
    folder, model = made
    images = drawn(7)
    manifest = run(tmp_path / "c", folder, table(images))
    features = shards.read_sae(tmp_path / "c", "sae")
    sae = random_sae(tmp_path / "again", "jumprelu", layer=1)
    expected = [plain(folder, model, image) for image in images]
    for layer, head in ((0, "layer-0"), (2, "layer-2"), ("vision", "vision")):
        for pooling, pool in (("last", lambda x: x[-1]), ("mean", lambda x: x.mean(0)), ("max", lambda x: x.amax(0))):
            theirs = torch.stack([pool(found[layer]) for found in expected]).numpy()
            np.testing.assert_allclose(
                shards.read_hidden(tmp_path / "c", head, pooling),
                theirs,
                atol=2e-4,
                rtol=1e-3,
                err_msg=f"{head} {pooling}",
            )
    # Otherwise all of this would hold of images that say nothing.
    assert shards.read_hidden(tmp_path / "c", "layer-2", "mean").std(axis=0).max() > 0.01
    assert features.tokens.tolist() == [16] * 7
    encoded = sae.encode(torch.cat([found[1] for found in expected])).detach().numpy()
    dense = np.zeros_like(encoded)
    dense[np.repeat(np.arange(len(features.counts)), features.counts), features.indices] = features.values
    np.testing.assert_allclose(dense, encoded, atol=1e-3)
    assert manifest["tokens"] == {"read": 7 * (18 if model.config.model_type == "paligemma" else 17), "content": 7 * 16}
    assert manifest["heads"]["vision"] == {"kind": "hidden", "layer": 0, "site": "vision_tower", "size": 24}
    assert manifest["heads"]["layer-2"]["size"] == 32


def test_the_tokens_of_an_image_are_those_of_its_processor(tmp_path: Path, made: tuple[Path, Any]) -> None:
    folder, model = made
    reader = opened(folder, images=True)
    (seen,) = reader.see([capture.Picture("e", drawn(1)[0])])
    theirs = reader.images.processor(images=[Image.new("RGB", (9, 9))], text=["<image>"])["input_ids"][0]
    # A LLaVA tokenizer that puts no beginning before a text puts none before an image either.
    assert seen.ids.tolist() == (theirs if model.config.model_type == "paligemma" else [1, *theirs])
    assert seen.content.sum() == 16
    assert (seen.ids[seen.content] == model.config.image_token_id).all()


def opened(folder: Path, layers: Sequence[int] = (1,), **changes: Any) -> LanguageModel:
    given = {"dtype": "float32", "attention": "eager", "device": "cpu", "key": "models.tiny", **changes}
    return LanguageModel(folder, places=[(layer, "resid_post") for layer in layers], **given)


def test_batch_sizes_leave_no_trace_but_float_noise_and_the_same_inputs_give_the_same_bytes(
    tmp_path: Path, made: tuple[Path, Any]
) -> None:
    given = table(drawn(5))
    a = run(tmp_path / "a", made[0], given)
    assert run(tmp_path / "again", made[0], given) == a
    run(tmp_path / "b", made[0], given, effort=Effort("cpu", 18, 4096))
    for head in ("layer-2", "vision"):
        one, other = (shards.read_hidden(tmp_path / x, head, "mean") for x in "ab")
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_vision_head_alone_runs_no_block(
    tmp_path: Path, made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = run(tmp_path / "both", made[0], table(drawn(2)))
    read = capture.LanguageModel.read

    def alone(self: LanguageModel, batch: Any) -> Any:
        assert len(self.blocks) == 0
        return read(self, batch)

    monkeypatch.setattr(capture.LanguageModel, "read", alone)
    manifest = run(tmp_path / "c", made[0], table(drawn(2)), heads=[vision_head()])
    assert manifest["shards"]["vision"] == both["shards"]["vision"]


def test_every_tokens_states_are_kept_of_images(tmp_path: Path, made: tuple[Path, Any]) -> None:
    folder, model = made
    images = drawn(3)
    run(tmp_path / "c", folder, table(images), heads=[token_head(1)])
    states, tokens = shards.read_states(tmp_path / "c", "layer-1-tokens")
    assert tokens.tolist() == [16] * 3
    theirs = torch.cat([plain(folder, model, image)[1] for image in images])
    np.testing.assert_allclose(states, theirs.numpy(), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("attention", "kind", "both_ways"), [("eager", "paligemma", True), ("sdpa", "llava", False)])
def test_an_image_is_read_in_both_directions_where_its_model_does(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, attention: str, kind: str, both_ways: bool
) -> None:
    MAKERS[kind](tmp_path, tiny_tokenizer)
    reader = opened(tmp_path, images=True, attention=attention)
    seen = reader.see([capture.Picture("e", drawn(1)[0])])
    place, first = (1, "resid_post"), int(np.flatnonzero(seen[0].content)[0])
    before = reader.read(seen)[place][0, first]
    # The vision tower shows a change of an image everywhere; the language tower is given one at the image's end.
    reader.model.multi_modal_projector.register_forward_hook(lambda _, given, output: _raised_at_its_end(output))
    after = reader.read(seen)[place][0, first]
    assert bool((before - after).abs().max() > 1e-4) is both_ways


def _raised_at_its_end(features: torch.Tensor) -> torch.Tensor:
    features = features.clone()
    features[:, -1] += 1
    return features


# --- texts ---------------------------------------------------------------------------------------------------------


def test_texts_are_read_as_by_the_language_model_alone(tmp_path: Path, made: tuple[Path, Any]) -> None:
    folder, model = made
    alone = tmp_path / "alone"
    kind = {"gemma2": transformers.Gemma2ForCausalLM, "llama": transformers.LlamaForCausalLM}
    text = model.config.text_config
    causal = kind[text.model_type](type(text)(**{**text.to_dict(), "use_bidirectional_attention": False})).eval()
    causal.model.load_state_dict(model.model.language_model.state_dict())
    causal.save_pretrained(alone)
    reader = opened(folder)
    reader.tokenizer.save_pretrained(alone)
    tokens = reader.tokenize(TEXTS, 40)
    expected = opened(alone)
    assert [list(one.ids) for one in expected.tokenize(TEXTS, 40)] == [list(one.ids) for one in tokens]
    found, theirs = (model.read(tokens)[1, "resid_post"] for model in (reader, expected))
    torch.testing.assert_close(found, theirs)
    manifest = run(tmp_path / "c", folder, table(texts=TEXTS), heads=[hidden_head(2)])
    assert "images" not in manifest["identity"]
    with torch.inference_mode():
        states = causal.model(input_ids=torch.tensor(tokens[0].ids[None]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(found[0, : len(tokens[0])], states[2][0], atol=1e-4, rtol=1e-3)


def test_texts_are_read_from_left_to_right_whatever_the_attention(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    # PaliGemma's first kind has a Gemma tower, which may run any attention, and says that it reads in both directions.
    folder = tmp_path / "m"
    own = copied(tiny_tokenizer, folder)
    text = transformers.GemmaConfig(**LANGUAGE, **SPECIAL)
    tower = transformers.SiglipVisionConfig(**TOWER, vision_use_head=False)
    config = transformers.PaliGemmaConfig(
        vision_config=tower, text_config=text, image_token_index=409, projection_dim=32, hidden_size=32
    )
    assert config.text_config.use_bidirectional_attention
    transformers.PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    own.save_pretrained(folder)
    readers = [opened(folder, attention=attention) for attention in ("eager", "sdpa")]
    whole, start = readers[0].tokenize(["one two three", "one two"], 40)
    for reader in readers:
        a, b = (reader.read([one])[1, "resid_post"][0, :3] for one in (whole, start))
        torch.testing.assert_close(a, b)


def test_a_text_with_a_token_that_has_no_vector_is_named(tmp_path: Path, made: tuple[Path, Any]) -> None:
    # LLaVA's own image token has a vector, and is a special token.
    text, wrong = {
        "paligemma": ("two <seg127>", "it has '<seg127>' in it"),
        "llava": ("<image>", "it has no token that is not a special one"),
    }[made[1].config.model_type]
    with pytest.raises(UserError, match=f"example 'e1': {wrong}"):
        run(tmp_path / "c", made[0], table(texts=["one", text]), heads=[hidden_head(2)])


# --- identity ------------------------------------------------------------------------------------------------------


def test_the_identity_of_images_names_prompt_processor_and_backend(tmp_path: Path, made: tuple[Path, Any]) -> None:
    identity = run(tmp_path / "c", made[0], table(drawn(1)), reading=Reading("float32", "eager", 40, chat=True))
    images = identity["identity"]["images"]
    assert (images["prompt"], images["backend"]) == ("<image>", "pil")
    assert images["processor"] in ("CLIPImageProcessorPil", "SiglipImageProcessorPil")
    assert identity["identity"]["chat"] is None


def test_half_precision_records_how_many_features_flip(tmp_path: Path, made: tuple[Path, Any]) -> None:
    manifest = run(tmp_path / "c", made[0], table(drawn(3)), reading=Reading("bfloat16", "eager", 40))
    assert 0 < manifest["heads"]["sae"]["health"]["flipped_share"] < 0.5


@pytest.mark.parametrize("images", [True, False])
def test_a_reading_in_float32_takes_the_weights_from_the_files(
    tmp_path: Path, made: tuple[Path, Any], images: bool
) -> None:
    half, exact = (opened(made[0], dtype=dtype, images=images) for dtype in ("bfloat16", "float32"))
    pictures = [capture.Picture("e", image) for image in drawn(2)]
    batch = half.see(pictures) if images else half.tokenize(TEXTS[:2], 40)
    with precision.in_float32(half):
        (found,) = half.read(batch).values()
    # What the model computes once for all is as rough as before; the weights of half precision would be ten times off.
    torch.testing.assert_close(found, *exact.read(batch).values(), atol=3e-3, rtol=1e-3)


# --- what the towers give ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_feature_select_strategy": "full"},
        {"vision_feature_layer": -1},
        {"vision_feature_layer": [-2, -1]},
    ],
)
def test_the_vision_head_keeps_what_the_model_selects(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast, changes: dict[str, Any]
) -> None:
    folder = tmp_path / "m"
    model = llava(folder, tiny_tokenizer, **changes)
    images = drawn(3)
    run(tmp_path / "c", folder, table(images), heads=[vision_head()])
    found = shards.read_hidden(tmp_path / "c", "vision", "mean")
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    for row, encoded in enumerate(images):
        pixels = processor.image_processor(images=[Image.open(io.BytesIO(encoded))], return_tensors="pt")[
            "pixel_values"
        ]
        with torch.inference_mode():
            states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        layers = changes.get("vision_feature_layer", -2)
        selected = torch.cat([states[layer] for layer in (layers if isinstance(layers, list) else [layers])], dim=-1)[0]
        own = selected if changes.get("vision_feature_select_strategy") == "full" else selected[1:]
        np.testing.assert_allclose(found[row], own.mean(dim=0).numpy(), atol=2e-5, rtol=1e-3)
    record = read_json(tmp_path / "c/manifest.json")["heads"]["vision"]
    assert record["size"] == found.shape[1]


def test_images_are_turned_upright_and_brought_to_colour(tmp_path: Path, made: tuple[Path, Any]) -> None:
    rng = np.random.default_rng(0)
    upright = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    side = Image.Exif()
    side[0x0112] = 6
    grey = upright.convert("L")
    palette = upright.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    given = [
        (png(upright), png(upright.rotate(90, expand=True), exif=side)),
        (png(grey.convert("RGB")), png(grey)),
        (png(palette.convert("RGB")), png(palette, transparency=bytes([9] * 8))),
    ]
    run(tmp_path / "c", made[0], table([image for pair in given for image in pair]), heads=[vision_head()])
    found = shards.read_hidden(tmp_path / "c", "vision", "mean")
    np.testing.assert_allclose(found[::2], found[1::2], atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [b"no image at all", drawn(1)[0][:200]])
def test_an_image_that_does_not_decode_is_named(tmp_path: Path, made: tuple[Path, Any], broken: bytes) -> None:
    with pytest.raises(
        UserError, match=r"example 'e1': its image cannot be decoded\. Mend: remove it from the dataset"
    ):
        run(tmp_path / "c", made[0], table([drawn(1)[0], broken]))


def test_a_model_of_texts_alone_cannot_read_images(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"models\.tiny\.images: a language model cannot read images"):
        run(tmp_path / "c", tiny_model, table(drawn(1)), heads=[hidden_head(0)])


def test_the_vision_tower_reads_no_texts(tmp_path: Path, made: tuple[Path, Any]) -> None:
    with pytest.raises(UserError, match="a vision tower reads no texts"):
        run(tmp_path / "c", made[0], table(texts=["one"]), heads=[vision_head()])


def without(folder: Path, model: Path, name: str) -> Path:
    shutil.copytree(model, folder)
    (folder / name).unlink()
    return folder


def test_a_model_without_its_processor_reads_texts_only(tmp_path: Path, made: tuple[Path, Any]) -> None:
    folder = without(tmp_path / "m", made[0], "processor_config.json")
    with pytest.raises(UserError, match=r"models\.tiny\.source: it has no image processor\. Mend: save the model's"):
        run(tmp_path / "c", folder, table(drawn(1)))
    run(tmp_path / "c", folder, table(texts=["one"]), heads=[hidden_head(0)])


def test_a_processor_of_another_model_is_one_line(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    llava(tmp_path / "m", tiny_tokenizer)
    config = tmp_path / "m/processor_config.json"
    saved_as = json.loads(config.read_text())
    config.write_text(json.dumps({**saved_as, "patch_size": 8}))
    with pytest.raises(UserError, match=r"models\.tiny\.source: its processor writes 4 tokens .* gives 16"):
        run(tmp_path / "c", tmp_path / "m", table(drawn(1)))
    config.write_text(json.dumps({**saved_as, "patch_size": None}))
    with pytest.raises(UserError, match=r"models\.tiny\.source: its processor does not read an image of"):
        run(tmp_path / "d", tmp_path / "m", table(drawn(1)))


def test_an_image_longer_than_the_context_is_named(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    llava(tmp_path / "m", tiny_tokenizer)
    config = tmp_path / "m/config.json"
    given = json.loads(config.read_text())
    given["text_config"]["max_position_embeddings"] = 12
    config.write_text(json.dumps(given))
    with pytest.raises(UserError, match=r"example 'e0': its image takes 17 tokens, and the model reads 12"):
        run(tmp_path / "c", tmp_path / "m", table(drawn(1)))


def test_a_family_whose_images_are_not_known_is_refused_by_name(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    llava(tmp_path / "m", tiny_tokenizer)
    config = tmp_path / "m/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "llava_next"}))
    with pytest.raises(UserError, match=r"models\.tiny\.images: images are not read with models of type llava_next"):
        run(tmp_path / "c", tmp_path / "m", table(drawn(1)))


def test_attention_that_may_leave_out_the_caps_of_the_language_tower_is_refused(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    paligemma(tmp_path / "m", tiny_tokenizer)
    with pytest.raises(UserError, match=r"models\.tiny\.attention: gemma2 caps its attention scores"):
        run(tmp_path / "c", tmp_path / "m", table(drawn(1)), reading=Reading("float32", "sdpa", 40))


# --- snapshots -----------------------------------------------------------------------------------------------------


def test_a_vision_models_record_names_its_modality_and_the_language_towers_shapes(
    tmp_path: Path, made: tuple[Path, Any], tiny_model: Path
) -> None:
    model_snapshots.store("m", {"folder": str(made[0])}, tmp_path / "stored", made[0])
    record = read_json(tmp_path / "stored/revision.json")
    assert "processor_config.json" in record["files"]
    assert (record["modality"], record["layers"], record["hidden_size"], record["vision_size"]) == ("vision", 3, 32, 24)
    assert (record["attention_size"], record["context"], record["vocabulary"]) == (32, 64, 410)
    run(tmp_path / "c", tmp_path / "stored", table(drawn(1)), heads=[hidden_head(0)])
    model_snapshots.store("t", {"folder": str(tiny_model)}, tmp_path / "text", tiny_model)
    assert "modality" not in read_json(tmp_path / "text/revision.json")
