"""A small task with everything that a run has when its explorer starts, and one feature that is planted in it.

Texts about three topics in two parts; all about the harbour carry the token `Q`, and so do no others. An SAE of the tiny
model has one feature for that token; its others, and another SAE, are random. Some texts are hard to show.
"""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from saes_made import random_sae
from safetensors.torch import load_file, save_file
from worlds import TEXTS, write_reviews

from tessera import arms, capture, examples, explorer, pooling, probes, protocols, shards
from tessera.capture import Effort, Reading
from tessera.examples import Table
from tessera.files import read_json, write_json
from tessera.models import LanguageModel
from tessera.plan import Head, hidden_head
from tessera.saes import Sae
from tessera.snapshots import write_record

PLANTED = 5
MARK = "Q"
STRICT: dict[str, Any] = {"seeds": 3, "test_size": 0.25, "inner_folds": 3, "c": [0.1, 1.0]}
SEARCH = {"curve_poolings": None, "classifiers": ["l2", "means"], "sparse_k": [], "l1_penalties": [0.5]}
SEARCH |= {"alone": False, "regimes": {"train_shares": [], "label_noise": [], "imbalance": [], "shuffled": False}}
SETTINGS = {"features": 30, "examples": 4, "predictions": 12}
HEADS = [hidden_head(1), Head("marked", 0, "marked"), Head("other", 2, "other")]
READING = Reading(dtype="float32", attention="eager", max_length=64)
ODD = "\u202eright to left\u202c </script> \x07 \u00e9\u0302 \u6f22\u5b57 \ufffd \U0001f642"


@dataclass
class Made:
    """A results folder, its task, and what the explorer is told of it."""

    results: Path
    table: Table
    files: list[Path] = field(default_factory=list)

    def manifest(self, dataset: str = "reviews") -> Path:
        return self.results / f"activations/tiny/{dataset}/c/manifest.json"

    @property
    def heads(self) -> dict[str, dict[str, Any]]:
        manifests = {name: str(self.manifest(name)) for name in ("notes", "reviews")}
        return {name: {"sae": name, "manifests": manifests} for name in ("marked", "other")}

    def write(self, path: Path, **changes: Any) -> dict[str, Any]:
        """The explorer's file, read."""
        given: dict[str, Any] = {"model": "tiny", "dataset": "reviews", "results": self.results, "strict": STRICT}
        given |= {"cell_files": self.files, "heads": self.heads, "settings": SETTINGS}
        explorer.write(path, **{**given, **changes})
        found: dict[str, Any] = read_json(path)
        return found

    def dense(self, head: str, dataset: str = "reviews") -> list[np.ndarray]:
        """Tokens x width of each example."""
        tokens = shards.read_sae(self.manifest(dataset).parent, head)
        return np.split(pooling.of_tokens(tokens).toarray(), np.cumsum(tokens.tokens)[:-1])

    def probe(self, head: str, name: str, thresholds: list[float | None], **changes: Any) -> Path:
        """Fit and save as the workflow's script does; the file of cells."""
        folder, arm = self.manifest().parent, "sae" if head in self.heads else "hidden"
        X = (
            pooling.pool(shards.read_sae(folder, head), name)
            if arm == "sae"
            else shards.read_hidden(folder, head, name)
        )
        identity = {**dict.fromkeys(protocols.IDENTITY), "model": "tiny", "dataset": "reviews", "head": head}
        identity |= {"arm": arm, "layer": 0, "width": X.shape[1], "pooling": name}
        return self._run(
            X, identity, probes.about_head(self.manifest(), "tiny", "reviews", head, name), thresholds, changes
        )

    def probe_text(self, name: str) -> Path:
        identity = {
            **dict.fromkeys(protocols.IDENTITY),
            "model": "text",
            "dataset": "reviews",
            "head": name,
            "arm": "tfidf",
        }
        about = {"model": "text", "dataset": "reviews", "head": name, "snapshots": {}}
        return self._run(arms.on_text(name, self.table), identity, about, [None], {})

    def _run(
        self, X: Any, identity: dict[str, Any], about: dict[str, Any], thresholds: list[float | None], changes: Any
    ) -> Path:
        picked = probes.Picked()
        given: dict[str, Any] = {"protocols": ["paper", "strict"], "strict_settings": STRICT, "keep": picked.keep}
        given |= {"search": {**SEARCH, "thresholds": thresholds}}
        found = protocols.run(X, self.table, identity=identity, **{**given, **changes})
        path = self.results / f"probes/{identity['head']}-{identity['pooling']}.parquet"
        probes.write(*found, path, probe=picked.content(about, self.table, X))
        return path


def made(results: Path, tiny_model: Path) -> Made:
    folder = results / "models/tiny"
    folder.mkdir(parents=True)
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    world = Made(results, dataset(results, "reviews", 96, seed=0))
    dataset(results, "notes", 40, seed=1)
    random_sae(results / "saes/marked", "jumprelu", layer=0)
    random_sae(results / "saes/other", "topk", layer=2)
    plant(results / "saes/marked", folder, world.table.texts or [])
    for name in ("models/tiny", "saes/marked", "saes/other"):
        write_record(results / name, {}, None, {"sha256": name})
    for name in ("reviews", "notes"):
        read(world, name, folder)
    return world


def dataset(results: Path, name: str, n: int, seed: int) -> Table:
    """Texts of three topics, every eighth hard to show, every third of them a copy of another's group."""
    results.mkdir(exist_ok=True)
    write_reviews(results / f"{name}.csv", n=n, seed=seed)
    rows = list(csv.DictReader(io.StringIO((results / f"{name}.csv").read_text(encoding="utf-8"))))
    rng = np.random.default_rng(seed)
    texts = []
    for place, row in enumerate(rows):
        text = row["review"] if place % 8 else f"{TEXTS[place % len(TEXTS)]} {ODD}"
        words = text.split(" ")
        if row["topic"] == "harbour":
            words.insert(int(rng.integers(len(words) + 1)), MARK)
        texts.append(" ".join(words))
    columns = {
        "id": [f"{name}-{place}" for place in range(n)],
        "text": texts,
        "label": [row["topic"] for row in rows],
        "subset": [row["part"] for row in rows],
        "split": [None] * n,
        "group": np.arange(n) // 3 * 3,
    }
    path = results / f"datasets/{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    table = pa.table(columns, schema=examples.schema("text"))
    pq.write_table(table, path)
    record = {"source": {"file": f"{name}.csv"}, "sha256": examples.digest(table.to_batches())}
    write_json(path.with_suffix(".json"), record)
    return examples.read(path)


def plant(folder: Path, model: Path, texts: list[str]) -> None:
    """Make one feature of the SAE that of the mark: along what sets its tokens apart, active above all others."""
    language_model = LanguageModel(
        model, places=[(0, "resid_post")], dtype="float32", attention="eager", device="cpu", key="models.tiny"
    )
    (mark,) = language_model.tokenizer(MARK, add_special_tokens=False)["input_ids"]
    states, marked = [], []
    for tokens in language_model.tokenize(texts, READING.max_length):
        (found,) = language_model.read([tokens]).values()
        states.append(found[0])
        marked.append(torch.from_numpy(tokens.ids == mark))
    x, is_mark = torch.cat(states), torch.cat(marked)
    sae = Sae(folder, "saes.marked")
    given = sae.prepared(x) - (sae.tensors["b_dec"] if sae.config.apply_b_dec_to_input else 0)
    between = given[is_mark].mean(0) - given[~is_mark].mean(0)
    within = given[~is_mark].T.cov() + given[is_mark].T.cov() + 1e-4 * torch.eye(given.shape[1])
    direction = torch.linalg.solve(within, between)
    along = given @ (direction / direction.norm())
    low, high = along[~is_mark].max(), along[is_mark].min()
    assert low < high, "the mark is not told apart by one direction"
    tensors = load_file(folder / "sae_weights.safetensors")
    middle = (low + high) / 2
    tensors["W_enc"][:, PLANTED] = direction / direction.norm()
    tensors["b_enc"][PLANTED], tensors["threshold"][PLANTED] = -middle + 1, 1.0
    save_file(tensors, folder / "sae_weights.safetensors")


def read(world: Made, name: str, model: Path) -> None:
    capture.run(
        world.manifest(name).parent,
        model=("tiny", model, "models/tiny"),
        saes={sae: (world.results / f"saes/{sae}", f"saes/{sae}") for sae in ("marked", "other")},
        heads=HEADS,
        table=examples.read(world.results / f"datasets/{name}.parquet"),
        dataset_sha256="d" * 64,
        reading=READING,
        effort=Effort(device="cpu", batch_tokens=200, shard_tokens=500),
    )
