"""The pieces of the explorer, each against a plain reference."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy import sparse, stats
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast
from worlds import TEXTS

from tessera import capture, examples, explorer, health, pooling, probes, protocols, shards
from tessera.explorer import activity, dictionary, images, reasons
from tessera.explorer.pieces import Pieces
from tessera.explorer.weights import Weighed, weighed
from tessera.files import read_json, sha256_file, write_json
from tessera.passes import Kept
from tessera.pictures import Picture
from tessera.snapshots import write_record
from tessera.solvers import Model
from tessera.splits import Split

# --- activity ------------------------------------------------------------------------------------------------------


def written(folder: Path, tokens: list[int], width: int, parts: int, seed: int = 0) -> shards.SparseTokens:
    """A capture of one head with random features, its examples shuffled over its shards."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, min(9, width), sum(tokens)).astype(np.int32)
    indices = np.concatenate([np.sort(rng.choice(width, n, replace=False)) for n in counts]).astype(np.int32)
    values = rng.gamma(2, 3, len(indices)).astype(np.float32)
    starts, entries = np.cumsum([0, *tokens]), np.cumsum([0, *counts])
    files = []
    for number, rows in enumerate(np.array_split(rng.permutation(len(tokens)).astype(np.int32), parts)):
        places = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows])
        spots = np.concatenate([np.arange(entries[place], entries[place + 1]) for place in places])
        kept = Kept()
        kept.add(counts=counts[places], indices=indices[spots], values=values[spots])
        kept.add(norms=np.ones(len(places), np.float32))
        kept.sample = health.Sample(4)
        name = shards.part_name(number)
        shards.write(folder / "h" / name, capture.sae_table(rows, np.array(tokens)[rows], kept))
        files.append({"file": name, "sha256": sha256_file(folder / "h" / name)})
    heads = {"h": {"width": width}}
    write_json(folder / shards.MANIFEST, {"shards": {"h": files}, "heads": heads, "examples": len(tokens)})
    return shards.SparseTokens(width, np.array(tokens), counts, indices, values)


TOKENS = [3, 1, 7, 2, 5, 40, 1, 9, 12, 4, 6]


@pytest.mark.parametrize("name", ["sum", "mean", "max", "last", "top-2"])
def test_pooling_shard_by_shard_is_pooling_the_whole(tmp_path: Path, name: str) -> None:
    whole = pooling.pool(written(tmp_path, TOKENS, 23, parts=4), name)
    found = activity.pooled(tmp_path, "h", name)
    assert found.dtype == whole.dtype
    np.testing.assert_array_equal(found.toarray(), whole.toarray())


def test_largest_activations_and_those_of_every_token_are_those_of_the_dense_features(tmp_path: Path) -> None:
    dense = np.split(pooling.of_tokens(written(tmp_path, TOKENS, 23, parts=3)).toarray(), np.cumsum(TOKENS)[:-1])
    features = np.array([22, 0, 7])
    largest = activity.largest(tmp_path, "h", features)
    np.testing.assert_array_equal(largest, [tokens[:, features].max(axis=0) for tokens in dense])
    wanted = {5: [0, 22], 1: [7]}
    found = activity.at_every_token(tmp_path, "h", wanted)
    assert found.keys() == {(5, 0), (5, 22), (1, 7)}
    for (row, feature), values in found.items():
        np.testing.assert_array_equal(values, dense[row][:, feature])


# --- weights -------------------------------------------------------------------------------------------------------


def of(weights: Any, overlap: float = 0.25) -> Weighed:
    """Splits x rows x features, each feature with a spread of one."""
    weights = np.array(weights, dtype=float)
    return Weighed(weights, np.abs(weights).max(axis=1), overlap, top=1)


def test_the_interval_is_students_with_the_variance_of_overlapping_training_parts() -> None:
    values = np.array([0.5, 0.8, 0.6, 0.9])
    ((label, mean, low, high),) = of(values[:, None, None]).labels(0)
    error = values.std(ddof=1) * np.sqrt(1 / 4 + 0.25)
    assert (label, mean) == (1, pytest.approx(0.7))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 3, 0.7, error))


def test_a_single_split_has_no_interval() -> None:
    assert of([[[0.5]]]).labels(0) == [(1, 0.5, None, None)]


def test_of_many_labels_those_are_told_whose_weights_are_not_small_beside_the_largest() -> None:
    one = [[0.1], [-0.8], [0.3], [0.19], [0.21]]
    assert [label for label, *_ in of([one, one]).labels(0)] == [1, 2, 4]
    many = [[0.5 + 0.01 * label] for label in range(9)]
    assert [label for label, *_ in of([many, many]).labels(0)] == [8, 7, 6, 5, 4]


def test_a_feature_without_weight_is_neither_listed_nor_stable() -> None:
    found = of([[[0.0, 0.2, 0.0]], [[0.0, 0.0, 0.0]]])
    assert found.strongest(3).tolist() == [1]
    assert found.stability().tolist() == [0, 0.5, 0]
    assert found.same_sign(1) == 0.5


def test_strength_is_the_weight_times_the_spread_in_the_training_part() -> None:
    rng = np.random.default_rng(0)
    X = sparse.random(40, 6, 0.5, "csr", rng=rng)
    splits = [Split(seed, rng.integers(-1, 3, 40)) for seed in range(3)]
    fitted = [Model(rng.standard_normal((4, 6)), np.zeros(4), joint=True) for _ in splits]
    found = weighed(X, splits, fitted, 100)
    for split, model, strengths in zip(splits, fitted, found.strengths, strict=True):
        np.testing.assert_allclose(
            strengths, np.abs(model.weights).max(axis=0) * X.toarray()[split.train].std(axis=0), rtol=1e-9
        )
    assert found.overlap == pytest.approx(np.mean([split.test.sum() / split.train.sum() for split in splits]))
    assert found.top == 20


# --- reasons -------------------------------------------------------------------------------------------------------


def test_a_sample_is_half_wrong_where_there_are_as_many_and_in_order() -> None:
    rows = np.arange(100, 200)
    right = rows % 10 > 2
    found = reasons.sample(rows, right, 20)
    assert sorted(found) == found.tolist()
    assert np.isin(found, rows[~right]).sum() == 10
    assert len(reasons.sample(rows, right, 1000)) == 100
    few = reasons.sample(rows, rows > 102, 20)
    assert (few <= 102).sum() == 3
    assert len(few) == 20
    assert len(reasons.sample(rows, rows < 0, 20)) == 20
    assert reasons.sample(rows, right, 20).tolist() == found.tolist()


@pytest.mark.parametrize("labels", [2, 4])
def test_a_lead_is_the_difference_of_two_scores(labels: int) -> None:
    rng = np.random.default_rng(labels)
    X = sparse.random(30, 25, 0.8, "csr", rng=rng, data_rvs=lambda n: rng.gamma(2, 1, n))
    rows = 1 if labels == 2 else labels
    model = Model(rng.standard_normal((rows, 25)), rng.standard_normal(rows), joint=True)
    verdicts = set()
    for row in range(30):
        lead = reasons.lead(model, X[[row]])
        values = X[[row]].toarray()[0, lead.features].tolist()
        told = lead.told(values)
        probabilities = model.probabilities(X[[row]])[0]
        order = np.argsort(-probabilities)
        assert (lead.verdict, told["against"]) == (order[0], order[1])
        total = told["intercept"] + sum(part for _, _, part in told["contributions"]) + told["rest"]
        assert total == pytest.approx(np.log(probabilities[order[0]] / probabilities[order[1]]))
        assert len(told["contributions"]) == 12
        assert told["rest"] != 0
        for feature, value, _ in told["contributions"]:
            assert value == X[row, feature]
        verdicts.add(lead.verdict)
    assert len(verdicts) > 1


def test_an_example_without_an_active_feature_has_its_intercepts_alone() -> None:
    model = Model(np.ones((1, 3)), np.array([-0.4]), joint=True)
    told = reasons.lead(model, sparse.csr_matrix((1, 3))).told([])
    assert told == {"against": 1, "intercept": 0.4, "contributions": [], "rest": 0.0}


# --- dictionary ----------------------------------------------------------------------------------------------------


def test_neighbours_across_blocks_leave_out_rows_without_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dictionary, "BLOCK", 7)
    decoder = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    decoder[[3, 20]] = 0
    save_file({"W_dec": decoder}, tmp_path / dictionary.WEIGHTS)
    found = dictionary.neighbours(tmp_path, np.array([39, 3, 8]), most=36)
    unit = decoder / np.maximum(np.linalg.norm(decoder, axis=1, keepdims=True), 1e-30)
    for feature, near in zip((39, 8), (found[0], found[2]), strict=True):
        cosines = unit @ unit[feature]
        wanted = [other for other in np.argsort(-cosines) if other not in (feature, 3, 20)][:36]
        assert [other for other, _ in near] == wanted
        np.testing.assert_allclose([cosine for _, cosine in near], cosines[wanted], atol=1e-6)
    assert found[1] == []


# --- pieces --------------------------------------------------------------------------------------------------------


def of_sentencepiece(folder: Path) -> Any:
    """As Gemma's and Llama's: spaces are a sign, what is not in the vocabulary is bytes, and the first space is dropped."""
    words = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    words |= {piece: 300 + place for place, piece in enumerate(["▁", "a", "▁a", "b", "▁b", "ab", "▁ab", "é"])}
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b")]
    tokenizer = Tokenizer(models.BPE(words, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def of_words(folder: Path) -> Any:
    """As BERT's: parts of words begin with ##."""
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "##c", "b", "."]
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def test_pieces_of_bytes_read_as_the_text(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    pieces = Pieces(tmp_path)
    for text in [*TEXTS, "\u202e\u200b\x00\x1f", "\U0001f642\U0001f642 x", "\ufffd broken \ufffd signs", "\u6f22"]:
        ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        found = pieces.of(ids)
        assert len(found) == len(ids)
        assert "".join(found) == text
    assert pieces.of(tiny_tokenizer("b漢", add_special_tokens=False)["input_ids"]) == ["b", "", "", "漢"]


def test_a_character_that_is_never_whole_is_spelled_as_the_tokenizer_does(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    ids = tiny_tokenizer("b漢", add_special_tokens=False)["input_ids"]
    assert Pieces(tmp_path).of(ids[:-1]) == ["b", *tiny_tokenizer.convert_ids_to_tokens(ids[1:-1])]


def test_pieces_keep_the_space_that_a_decoder_drops(tmp_path: Path) -> None:
    tokenizer = of_sentencepiece(tmp_path)
    ids = tokenizer.encode("ab a b é漢 a").ids
    assert Pieces(tmp_path).of(ids) == [" ab", " a", " b", " ", "é", "", "", "漢", " a"]
    assert Pieces(tmp_path).of([231]) == ["<0xE6>"]


def test_pieces_of_words_begin_with_their_space(tmp_path: Path) -> None:
    ids = of_words(tmp_path).encode("abc b.").ids
    assert Pieces(tmp_path).of(ids) == [" a", "b", "c", " b", "."]


def test_a_tokenizer_of_another_form_is_opened_as_the_model_opens_it(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "c"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    assert Pieces(tmp_path).of([5, 6, 7]) == [" a", "b", " c"]


# --- images --------------------------------------------------------------------------------------------------------


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def opened(address: str) -> tuple[str, Image.Image]:
    kind, _, content = address.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def test_images_are_shrunk_and_never_enlarged(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3))
    drawing = np.zeros((8, 8), np.uint8)
    drawing[2:5, 3] = 255
    found = images.shown([Picture("p", encoded(noise)), Picture("d", encoded(drawing))], tmp_path)
    kind, photo = opened(found["p"])
    assert (kind, photo.size) == ("data:image/jpeg", (96, 72))
    kind, small = opened(found["d"])
    assert (kind, small.size) == ("data:image/png", (8, 8))
    np.testing.assert_array_equal(np.asarray(small.convert("L")), drawing)


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_an_image_is_cropped_as_its_model_sees_it(tmp_path: Path, name: str) -> None:
    pixels = np.zeros((20, 60, 3))
    pixels[:, 20:40] = 255
    for crop, size in ((True, (20, 20)), (False, (60, 20))):
        config = {"do_center_crop": crop}
        write_json(tmp_path / name, {"image_processor": config} if name.startswith("processor") else config)
        image = opened(images.shown([Picture("p", encoded(pixels))], tmp_path)["p"])[1]
        assert image.size == size
        assert (np.asarray(image.convert("L")).min() > 250) == crop


def test_patches_are_a_square_or_a_row() -> None:
    assert images.grid(256) == [16, 16]
    assert images.grid(1) == [1, 1]
    assert images.grid(577) == [1, 577]


def test_a_task_of_images_shows_each_once_and_the_grid_of_its_patches(tmp_path: Path) -> None:
    n, patches, width = 40, 4, 12
    rng = np.random.default_rng(0)
    tokens = written(tmp_path / "activations", [patches] * n, width, parts=3)
    dense = pooling.of_tokens(tokens).toarray().reshape(n, patches, width)
    labels = np.where(dense[:, :, 7].sum(axis=1) > np.median(dense[:, :, 7].sum(axis=1)), "more", "less")
    pictures = [encoded(rng.integers(0, 255, (8, 8))) for _ in range(n)]
    rows = {"id": [f"i{row}" for row in range(n)], "image": pictures, "label": labels.tolist(), "subset": ["all"] * n}
    rows |= {"split": [None] * n, "group": np.arange(n)}
    (tmp_path / "datasets").mkdir()
    table = pa.table(rows, schema=examples.schema("image"))
    pq.write_table(table, tmp_path / "datasets/d.parquet")
    digest = examples.digest(table.to_batches())
    write_json(tmp_path / "datasets/d.json", {"source": {"demo": "digits"}, "sha256": digest})
    (tmp_path / "saes/s").mkdir(parents=True)
    save_file({"W_dec": rng.standard_normal((width, 5)).astype(np.float32)}, tmp_path / "saes/s" / dictionary.WEIGHTS)
    write_json(tmp_path / "saes/s" / dictionary.CONFIG, {})
    for snapshot in (tmp_path / "saes/s", tmp_path / "models/m"):
        snapshot.mkdir(parents=True, exist_ok=True)
        write_record(snapshot, {}, None, {})
    strict: dict[str, Any] = {"seeds": 2, "test_size": 0.3, "inner_folds": 2, "c": [1.0]}
    identity = {"model": "m", "dataset": "d", "head": "h", "arm": "sae", "layer": 0, "width": width, "pooling": "sum"}
    regimes: dict[str, Any] = {"train_shares": [], "label_noise": [], "imbalance": [], "shuffled": False}
    search = {
        "thresholds": [None],
        "classifiers": ["l2"],
        "l1_penalties": [0.5],
        "sparse_k": [],
        "curve_poolings": None,
    }
    found = protocols.run(
        pooling.pool(tokens, "sum"),
        examples.read(tmp_path / "datasets/d.parquet"),
        identity=identity,
        search={**search, "alone": False, "regimes": regimes},
        protocols=["strict"],
        strict_settings=strict,
    )
    probes.write(*found, tmp_path / "probes/sum.parquet")
    manifests = {"d": str(tmp_path / "activations" / shards.MANIFEST)}
    explorer.write(
        tmp_path / "e.json",
        model="m",
        dataset="d",
        results=tmp_path,
        cell_files=[tmp_path / "probes/sum.parquet"],
        heads={"h": {"sae": "s", "manifests": manifests}},
        strict=strict,
        settings={"features": 5, "examples": 3, "predictions": 6},
    )
    told = read_json(tmp_path / "e.json")
    assert (told["task"]["kind"], told["task"]["demo"]) == ("image", True)
    assert told["features"][0]["feature"] == 7
    assert told["features"][0]["weights"][0][0] == 1
    shown = {one["example"] for feature in told["features"] for one in feature["examples"]}
    assert told["images"].keys() == shown | {one["example"] for one in told["predictions"]}
    for feature in told["features"]:
        for one in feature["examples"]:
            assert one["grid"] == [2, 2]
            row = int(one["example"][1:])
            np.testing.assert_allclose(one["values"], dense[row, :, feature["feature"]], rtol=6e-4)
            assert "tokens" not in one
            image = opened(told["images"][one["example"]])[1]
            np.testing.assert_array_equal(
                np.asarray(image), np.asarray(Image.open(io.BytesIO(pictures[row])).convert("RGB"))
            )
    assert all("text" not in one for one in told["predictions"])


def test_numbers_are_short_and_no_number_is_not_one(tmp_path: Path) -> None:
    told = explorer._rounded({"a": [np.float32(0.123456), 2.0, np.int64(7), True, None, -0.0], "b": (1e-9 / 3, "x")})
    assert json.dumps(told) == '{"a": [0.1235, 2, 7, true, null, 0], "b": [3.333e-10, "x"]}'
