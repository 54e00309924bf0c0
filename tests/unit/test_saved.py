"""Saved probes: applied to their own dataset they repeat what the predictions say, and what does not fit is refused."""

import csv
import json
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from saes_made import random_sae
from safetensors.numpy import load_file, save_file
from worlds import TEXTS, write_reviews

from tessera import arms, capture, controls, pooling, probes, protocols, saved, shards
from tessera.arms import Given, Variant
from tessera.attention import States
from tessera.capture import Effort, Reading
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json, write_json
from tessera.plan import ATTENTION, Head, hidden_head, token_head
from tessera.protocols import Choice, Failed, Grid, Result
from tessera.regimes import Regime
from tessera.snapshots import write_record
from tessera.solvers import Model, majority
from tessera.splits import Split

HEADS = [
    hidden_head(1),
    token_head(1),
    Head("jump", 1, "jump"),
    Head("top", 3, "top"),
    Head("chance", 1, "chance", matched="jump"),
]
SEARCH = {
    "alone": False,
    "curve_poolings": None,
    "classifiers": ["l2", "means"],
    "sparse_k": [2],
    "regimes": {"train_shares": [], "label_noise": [], "imbalance": [], "shuffled": True},
}
STRICT = {"seeds": 2, "test_size": 0.25, "inner_folds": 3, "c": [0.1, 1.0]}


@dataclass
class World:
    """A results folder with what a run has there when its probes begin, and a way to run them."""

    results: Path
    table: Table
    reading: str

    @property
    def manifest(self) -> Path:
        return self.results / f"activations/tiny/reviews/{self.reading}/manifest.json"

    def file(self, head: str, pooling: str, threshold: float | None) -> Path:
        return self.results / f"probes/tiny-{self.reading}/reviews/{head}/{pooling}-{threshold}.parquet"

    def probe(
        self, head: str, name: str, thresholds: list[float | None], which: tuple[str, ...] = ("paper", "strict")
    ) -> Path:
        """Fit and save as the workflow's script does. The saved probe's file."""
        X: Any
        if name == ATTENTION:
            X = States(*shards.read_states(self.manifest.parent, head))
        elif head.startswith("layer"):
            X = shards.read_hidden(self.manifest.parent, head, name)
        else:
            X = pooling.pool(shards.read_sae(self.manifest.parent, head), name)
        picked = probes.Picked()
        found = self.run(X, "sae", thresholds, picked, which)
        about = probes.about_head(self.manifest, "tiny", "reviews", head, name)
        path = self.file(head, name, thresholds[0])
        probes.write(*found, path, probe=picked.content(about, self.table, X))
        return probes.probe_path(path)

    def probe_text(self, name: str) -> Path:
        arm, picked = arms.on_text(name, self.table), probes.Picked()
        found = self.run(arm, "tfidf", [None], picked)
        about = {"model": "text", "dataset": "reviews", "head": name, "snapshots": {}}
        path = self.results / f"probes/text/reviews/{name}.parquet"
        probes.write(*found, path, probe=picked.content(about, self.table, arm))
        return probes.probe_path(path)

    def run(
        self,
        features: Any,
        arm: str,
        thresholds: list[float | None],
        picked: probes.Picked,
        which: tuple[str, ...] = ("paper", "strict"),
    ) -> Any:
        identity = {**dict.fromkeys(protocols.IDENTITY), "arm": arm}
        search = {**SEARCH, "thresholds": thresholds}
        settings: Any = {"search": search, "protocols": which, "strict_settings": STRICT}
        return protocols.run(features, self.table, identity=identity, keep=picked.keep, **settings)


def reviews(folder: Path) -> Table:
    write_reviews(folder / "reviews.csv", n=72)
    with (folder / "reviews.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    # Of one topic the texts tell nothing, and some are longer than is read.
    texts = [row["review"] if place > 6 else TEXTS[place % len(TEXTS)] for place, row in enumerate(rows)]
    labels = np.array([row["topic"] for row in rows], dtype=object)
    n = len(rows)
    return Table([f"e{place}" for place in range(n)], texts, None, labels, labels, [None] * n, np.arange(n))


READINGS = {
    "plain": Reading(dtype="float32", attention="eager", max_length=20),
    "chat": Reading(dtype="float32", attention="eager", max_length=30, chat=True),
}
TEMPLATE = "{% for said in messages %}<user>{{ said.content }}</user>{% endfor %}"


@pytest.fixture(scope="module", params=READINGS)
def world(request: Any, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_tokenizer: Any) -> World:
    results = tmp_path_factory.mktemp("saved") / "results"
    model = results / "models/tiny"
    model.mkdir(parents=True)
    for file in tiny_model.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    settings = read_json(model / "tokenizer_config.json")
    write_json(model / "tokenizer_config.json", settings | {"chat_template": TEMPLATE})
    random_sae(results / "saes/jump", "jumprelu", layer=1)
    random_sae(results / "saes/top", "topk", layer=3)
    (results / "saes/chance").mkdir()
    controls.write(results / "saes/jump", results / "saes/chance", 7)
    hashes = {"models/tiny": "m" * 64, **{f"saes/{name}": name * 9 for name in ("jump", "top", "chance")}}
    for name, sha256 in hashes.items():
        write_record(results / name, {}, None, {"sha256": sha256})
    made = World(results, reviews(results), request.param)
    capture.run(
        made.manifest.parent,
        model=("tiny", model, hashes["models/tiny"]),
        saes={name: (results / f"saes/{name}", hashes[f"saes/{name}"]) for name in ("jump", "top", "chance")},
        heads=HEADS,
        table=made.table,
        dataset_sha256="d" * 64,
        reading=READINGS[request.param],
        effort=Effort(device="cpu", batch_tokens=200, shard_tokens=400),
    )
    return made


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One without a model."""
    results = tmp_path_factory.mktemp("words") / "results"
    results.mkdir()
    return World(results, reviews(results), "plain")


def answered(path: Path, threshold: float | None) -> tuple[list[str], list[str], list[str], np.ndarray]:
    """Labels, and of the first strict split the ids, predictions and scores."""
    predictions = pq.ParquetFile(probes.predictions_path(str(path).replace(".probe.safetensors", ".parquet"))).read()
    rows = [
        row
        for row in predictions.to_pylist()
        if (row["protocol"], row["seed"], row["threshold"]) == ("strict", 0, threshold) and row["classifier"] != "means"
    ]
    labels = json.loads(predictions.schema.metadata[b"labels"])
    scores = np.array([row["scores"] for row in rows])
    return labels, [row["example"] for row in rows], [row["predicted"] for row in rows], scores


def repeats_its_predictions(path: Path, table: Table, threshold: float | None) -> None:
    probe = saved.load(path, batch_tokens=90)
    labels, ids, predicted, scores = answered(path, threshold)
    assert probe.labels == labels
    assert probe.about["threshold"] == threshold
    assert len(ids) >= len(table) // 5
    assert np.ptp(scores, axis=0).max() > 0.01 or probe.about["classifier"] == "majority"
    texts = [(table.texts or [])[table.ids.index(name)] for name in ids]
    assert probe.predict(texts) == predicted
    np.testing.assert_allclose(probe.probabilities(texts), scores, atol=1e-4)


# --- equality ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [None, 1.0])
@pytest.mark.parametrize(
    ("head", "name"),
    [("jump", "sum"), ("jump", "last"), ("jump", "top-3"), ("top", "max"), ("top", "mean"), ("chance", "sum")],
)
def test_a_probe_of_an_sae_repeats_its_predictions(world: World, head: str, name: str, threshold: float | None) -> None:
    repeats_its_predictions(world.probe(head, name, [threshold]), world.table, threshold)


@pytest.mark.parametrize("name", ["last", "mean", "max"])
def test_a_probe_of_hidden_states_repeats_its_predictions(world: World, name: str) -> None:
    repeats_its_predictions(world.probe("layer-1", name, [None]), world.table, None)


def test_a_probe_that_attends_repeats_its_predictions(world: World) -> None:
    repeats_its_predictions(world.probe("layer-1-tokens", ATTENTION, [None]), world.table, None)


@pytest.mark.parametrize("name", arms.TEXT_ARMS)
@pytest.mark.parametrize("labels", [2, 3])
def test_a_probe_of_plain_text_repeats_its_predictions(words: World, name: str, labels: int) -> None:
    given = words.table.labels
    merged = given if labels == 3 else np.where(given == "garden", "garden", "elsewhere").astype(object)
    few = World(words.results / str(labels), Table(**{**vars(words.table), "labels": merged}), "plain")
    repeats_its_predictions(few.probe_text(name), few.table, None)


def test_each_text_has_its_own_answer_whatever_it_comes_with(world: World) -> None:
    probe = saved.load(world.probe("jump", "sum", [None]))
    texts = [*TEXTS, *TEXTS[:2]]
    together = probe.probabilities(texts)
    alone = np.concatenate([probe.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    assert probe.predict([]) == []
    assert probe.probabilities([]).shape == (0, 3)


def test_many_texts_are_read_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path, texts = world.probe("layer-1", "mean", [None]), world.table.texts
    assert texts is not None
    whole = saved.load(path, batch_tokens=1).probabilities(texts)
    monkeypatch.setattr(saved, "POOLED_TOGETHER", 50)
    np.testing.assert_allclose(saved.load(path, batch_tokens=1).probabilities(texts), whole, atol=1e-6)


# --- which probe is saved ------------------------------------------------------------------------------------------


def offered(
    picked: probes.Picked, validation: float | None, threshold: float | None = None, classifier: Any = "l2"
) -> None:
    """One configuration; without a validation score, one that failed."""
    arm, weights = Given(np.zeros((4, 3))), np.array([[0.0, validation or 0, 1.0]])
    variant = Variant("sae", classifier, threshold, None, Regime("full", lambda *_: (_[0].folds, _[1])), lambda _: arm)
    choice = Choice(Grid(majority, [1.0], "C"), 1.0, validation or 0.0)
    result = (
        Failed("it would not")
        if validation is None
        else Result(choice, 3, np.zeros(1), np.zeros((1, 2)), 2, Model(weights, np.zeros(1), joint=True))
    )
    picked.keep(variant, Split(0, np.array([0, 0, 1, -1])), result)


def about(picked: probes.Picked) -> dict[str, Any]:
    labels = np.array(["a", "b", "a", "b"], dtype=object)
    table = Table(list("wxyz"), None, None, labels, labels, [None] * 4, np.arange(4))
    return dict(picked.content({"head": "sum"}, table).about)


def test_it_is_the_one_that_validation_picks() -> None:
    picked = probes.Picked()
    for validation, threshold, classifier in [
        (0.5, None, "l2"),
        (0.8, 2.0, "l2"),
        (0.7, 1.0, "l2"),
        (0.9, 1.0, "means"),
    ]:
        offered(picked, validation, threshold, classifier)
    offered(picked, None, 3.0)
    found = about(picked)
    assert (found["threshold"], found["validation"], found["labels"]) == (2.0, 0.8, ["a", "b"])
    # Only features that weigh anything are kept.
    assert picked.tensors["features"].tolist() == [1, 2]
    assert picked.tensors["weights"].tolist() == [[0.8, 1.0]]


def test_of_equal_ones_the_lower_threshold_comes_first_and_none_last() -> None:
    for order in ([None, 2.0, 1.0], [1.0, None, 2.0]):
        picked = probes.Picked()
        for threshold in order:
            offered(picked, 0.5, threshold)
        assert about(picked)["threshold"] == 1.0


def test_validation_decides_among_thresholds_in_a_whole_job(words: World) -> None:
    rng = np.random.default_rng(0)
    X = (rng.random((72, 6)) < 0.5).astype(np.float32)
    X[:, 0] = 0.5 * (words.table.labels == "garden") + 0.25 * (words.table.labels == "harbour")
    for thresholds in ([0.9, None], [None, 0.9]):
        # Above the threshold there is nothing but noise.
        picked = probes.Picked()
        words.run(X, "sae", thresholds, picked)
        assert about(picked)["threshold"] is None


def test_an_input_without_a_probe_says_why(words: World, tmp_path: Path) -> None:
    picked = probes.Picked()
    offered(picked, None)
    offered(picked, None, 1.0)
    assert about(picked)["reason"] == "it would not"
    words.run(np.ones((72, 2), np.float32), "sae", [None], picked := probes.Picked(), ("paper",))
    probes.write(protocols.CELLS.empty_table(), protocols.PREDICTIONS.empty_table(), tmp_path / "sum.parquet")
    assert about(picked)["reason"] == "the strict protocol did not run"
    with pytest.raises(UserError, match=r"sum\.probe\.safetensors: no probe came of its input \(its job kept none\)"):
        saved.load(tmp_path / "sum.probe.safetensors")


def test_a_pooling_without_its_probe_is_not_done(tmp_path: Path) -> None:
    asked = []

    def probe(name: str) -> probes.Made:
        asked.append(name)
        return probes.Made(protocols.CELLS.empty_table(), protocols.PREDICTIONS.empty_table())

    probes.run_poolings(tmp_path, ["sum", "last"], probe, {})
    (tmp_path / "sum.probe.safetensors").unlink()
    probes.run_poolings(tmp_path, ["sum", "last"], probe, {})
    assert asked == ["sum", "last", "sum"]


def test_the_same_probe_has_the_same_bytes(words: World) -> None:
    first = words.probe_text("tfidf-char").read_bytes()
    assert words.probe_text("tfidf-char").read_bytes() == first


def test_a_wide_probe_is_small() -> None:
    picked = probes.Picked()
    weights = np.zeros((2, 1_000_000))
    weights[:, [5, 999_999]] = 1.5
    result = Result(
        Choice(Grid(majority, [1.0]), 1.0, 0.5),
        10**6,
        np.zeros(1),
        np.zeros((1, 2)),
        2,
        Model(weights, np.zeros(2), joint=True),
    )
    variant = Variant("sae", "l2", None, None, Regime("full", lambda *_: (_[0].folds, _[1])), lambda _: Given(weights))
    picked.keep(variant, Split(0, np.array([0, -1])), result)
    assert sum(tensor.nbytes for tensor in picked.tensors.values()) < 100


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        saved.load(path, **settings)
    told = str(caught.value)
    assert "\n" not in told
    return told


@pytest.fixture
def file(words: World, tmp_path: Path) -> Path:
    copy = tmp_path / "tfidf-word.probe.safetensors"
    copy.write_bytes(words.probe_text("tfidf-word").read_bytes())
    return copy


def test_a_file_that_is_damaged_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    end_of_header = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in (0, 20, end_of_header + 9, len(whole) - 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "Mend: delete it and run the workflow again." in refused(file)
    file.write_bytes(whole[:-10])
    assert "it is damaged, or no safetensors file" in refused(file)
    file.write_bytes(b"")
    assert "it is damaged, or no safetensors file" in refused(file)


def rewritten(file: Path, header: dict[str, str]) -> Path:
    save_file(load_file(file), file, header)
    return file


def test_another_format_is_refused_by_its_number(file: Path) -> None:
    header = json.dumps({"format": 2, "sha256": "", "about": {}})
    assert "it has format 2, and this release reads format 1" in refused(rewritten(file, {"tessera": header}))


def test_what_is_no_probe_is_refused(file: Path) -> None:
    assert "there is no such file" in refused(file.with_name("nowhere.probe.safetensors"))
    assert "it is not a saved probe" in refused(rewritten(file, {"format": "pt"}))
    for header in ("{", "[]", "{}"):
        assert "its header is damaged" in refused(rewritten(file, {"tessera": header}))


def test_a_label_changed_by_hand_is_noticed(file: Path) -> None:
    with saved.safe_open(file, framework="numpy") as opened:
        header = opened.metadata()["tessera"]
    changed = rewritten(file, {"tessera": header.replace("garden", "gorden")})
    assert "its content is not what its header says" in refused(changed)


def test_a_snapshot_that_changed_is_refused(world: World) -> None:
    path = world.probe("chance", "last", [None])
    for name in ("models/tiny", "saes/chance", "saes/jump"):
        record = world.results / name / "revision.json"
        before = record.read_text()
        write_json(record, {"sha256": "other"})
        told = refused(path)
        record.write_text(before)
        assert told.startswith(f"{record.parent}: this snapshot is not the one that the probe was trained on. Mend: ")
    saved.load(path)


def test_a_probe_away_from_its_results_asks_for_them(world: World, tmp_path: Path) -> None:
    path = tmp_path / "sum.probe.safetensors"
    path.write_bytes(world.probe("jump", "sum", [None]).read_bytes())
    told = refused(path)
    assert "the snapshots it reads (models/tiny, saes/jump) are in no folder above it" in told
    assert "load(..., results=...)" in told
    assert len(saved.load(path, results=world.results).predict(TEXTS)) == len(TEXTS)


def test_a_text_without_tokens_is_named(world: World) -> None:
    probe = saved.load(world.probe("layer-1", "mean", [None]))
    with pytest.raises(UserError, match=r"^text 1: it has no token that is not a special one\. Mend: leave it out\.$"):
        probe.predict(["a short text", ""])


def test_a_text_in_place_of_a_list_of_texts_is_refused(words: World) -> None:
    with pytest.raises(UserError, match="a single text was given"):
        saved.load(words.probe_text("length")).predict("a short text")


# --- what is not imported ------------------------------------------------------------------------------------------

ALONE = """
import sys
from tessera import saved
print(*saved.load(sys.argv[1]).predict(["soil and seed and water", "boat, rope and tide", ""]))
print(*sorted({"torch", "sklearn", "transformers", "pandas"} & sys.modules.keys()))
"""


def test_a_probe_on_plain_text_is_applied_without_torch_and_scikit_learn(words: World) -> None:
    path = words.probe_text("tfidf-word")
    done = subprocess.run([sys.executable, "-c", ALONE, str(path)], capture_output=True, text=True, check=True)
    answers, imported = done.stdout.splitlines()
    assert answers.split()[:2] == ["garden", "harbour"]
    assert imported == ""
