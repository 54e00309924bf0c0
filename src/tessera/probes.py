"""The files of a probe job: cells, predictions and the probe itself of one input, and the record of a head's poolings.

One job serves all poolings of a head, because a head's shards are large and are read once for all of them. Each pooling
still has its files and the stamp of everything they depend on, so a job that is asked for one more pooling, or was
killed between two, computes what is missing and leaves the rest as it is.

The probe is a safetensors file, which holds numbers and text and nothing that could run. It is the one that validation
picks on strict's first split; `tessera.saved` reads it and applies it to new text. Its numbers say what a model weighs,
its header what has to be read, and from which snapshots, to come to those features.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from tessera import arms
from tessera.arms import Arm, TfIdf, Variant
from tessera.attention import Attended, States
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import canonical_json, read_json, replacing, sha256_json, write_json
from tessera.plan import CLAIM, Head
from tessera.protocols import Failed, Result
from tessera.solvers import Matrix, Model
from tessera.splits import Split

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

STAMP = b"stamp"

RECORD = "probes.json"

# The version of a saved probe's layout, and the one entry of its header.
FORMAT, HEADER = 1, "tessera"

# The classifiers that compete for an arm's row in the tables.
SAVED = ("l2", "majority")

# Text arm -> the terms of a text, for those whose terms are learned.
TERMS: dict[str, Callable[[str], Iterable[tuple[str, ...]]]] = {"tfidf-word": arms.words, "tfidf-char": arms.characters}


def predictions_path(path: Path | str) -> Path:
    """Where the predictions lie that belong to a file of cells."""
    return Path(path).with_suffix(".predictions.parquet")


def probe_path(path: Path | str) -> Path:
    """Where the probe lies that belongs to a file of cells."""
    return Path(path).with_suffix(".probe.safetensors")


# --- the probe itself ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """What a saved probe's file holds: its numbers, and what is to be known about them. One without numbers has a reason."""

    about: Mapping[str, Any]
    tensors: Mapping[str, Array] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(canonical_json(dict(self.about)).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        # One entry, because the file keeps several in no order.
        header = canonical_json({"format": FORMAT, "sha256": self.sha256, "about": self.about})
        with replacing(path) as partial_path:
            save_file(dict(self.tensors), partial_path, {HEADER: header})


NO_PROBE = Content({"reason": "its job kept none"})


class Picked:
    """The probe to save of an input: of its configurations the one with the best inner validation score.

    No test score enters. Equal ones stand as in `tessera.tables`: by threshold, and no threshold last.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, None] = {}
        self.place: tuple[float, bool, float] | None = None
        self.about: dict[str, Any] = {}
        self.tensors: dict[str, Array] = {}
        self.train = np.zeros(0, dtype=bool)

    def keep(self, variant: Variant, split: Split, result: Result | Failed) -> None:
        """Consider a configuration on strict's first split; this is what `protocols.run` calls."""
        if variant.classifier not in SAVED:
            return
        if isinstance(result, Failed):
            self.reasons[result.reason] = None
            return
        place = (-result.choice.validation, variant.threshold is None, variant.threshold or 0.0)
        if self.place is not None and self.place <= place:
            return
        model = result.model
        assert isinstance(model, Model)  # noqa: S101 - those that are saved are no trees
        weighed = np.flatnonzero(model.weights.any(axis=0))
        self.place, self.train = place, split.train
        self.about = {"protocol": "strict", "seed": split.seed, "threshold": variant.threshold}
        self.about |= {"classifier": variant.classifier, "c": None} | result.choice.columns
        self.tensors = {
            "features": weighed.astype(np.int32),
            "weights": np.ascontiguousarray(model.weights[:, weighed]),
            "intercepts": model.intercepts,
        }

    def content(self, about: Mapping[str, Any], table: Table, features: Matrix | Arm | States | None = None) -> Content:
        """The file's content. `about` is where the features come from; what was learned to come to them is added."""
        if self.place is None:
            return Content({**about, "reason": "; ".join(self.reasons) or "the strict protocol did not run"})
        tensors = dict(self.tensors)
        if isinstance(features, TfIdf):
            tensors |= _vocabulary(features, table.texts or [], self.train, TERMS[about["head"]])
        if isinstance(features, States):
            codes = np.unique(table.labels, return_inverse=True)[1]
            tensors["query"] = Attended(features, codes, len(set(table.labels))).query(self.train)
        return Content({**about, **self.about, "labels": sorted(set(table.labels))}, tensors)


def _vocabulary(
    arm: TfIdf, texts: Sequence[str], train: Array, terms: Callable[[str], Iterable[tuple[str, ...]]]
) -> dict[str, Array]:
    """What TF-IDF learns of a training part: its terms, a line each, in the order of its features; and their rarity."""
    # Columns come in the order in which terms first do.
    every = list(dict.fromkeys(term for text in texts for of_word in terms(text) for term in of_word))
    kept, rarity = arm.fit(train)
    spelled = "\n".join(every[column] for column in kept).encode()
    return {"terms": np.frombuffer(spelled, np.uint8), "rarity": rarity}


def about_head(manifest: Path, model: str, dataset: str, head: str, pooling: str) -> dict[str, Any]:
    """Where the features of a pooling come from: what is read of which snapshots, and how."""
    reading = dict(read_json(manifest)["identity"])
    digests = {"dataset": reading.pop("dataset"), "model": reading.pop("model"), "saes": reading.pop("saes")}
    (read,) = (Head(**entry) for entry in read_json(manifest.parent / CLAIM) if entry["id"] == head)
    return {
        "model": model,
        "dataset": dataset,
        "dataset_sha256": digests["dataset"],
        "head": head,
        "place": {key: value for key, value in asdict(read).items() if key not in ("id", "every_token")},
        "pooling": pooling,
        "reading": reading,
        "snapshots": {
            f"models/{model}": digests["model"],
            **{f"saes/{sae}": digests["saes"][sae] for sae in read.saes},
        },
    }


# --- files ---------------------------------------------------------------------------------------------------------


class Made(NamedTuple):
    """What is made of one input."""

    cells: pa.Table
    predictions: pa.Table
    probe: Content = NO_PROBE


def write(cells: pa.Table, predictions: pa.Table, path: Path | str, stamp: str = "", probe: Content = NO_PROBE) -> None:
    """Write all files of an input; the cells last, as the file by which it is known to be done."""
    stamped = cells.replace_schema_metadata({**(cells.schema.metadata or {}), STAMP: stamp})
    probe.write(probe_path(path))
    for table, target in ((predictions, predictions_path(path)), (stamped, path)):
        with replacing(target) as partial_path:
            pq.write_table(table, partial_path, compression="zstd")


def is_done(path: Path, stamp: str) -> bool:
    """Whether all files of an input are there and come from the same everything."""
    if not all(file.is_file() for file in (path, predictions_path(path), probe_path(path))):
        return False
    return (pq.read_schema(path).metadata or {}).get(STAMP) == stamp.encode()


def run_poolings(
    folder: Path,
    poolings: Sequence[str],
    probe: Callable[[str], Made],
    depends_on: Mapping[str, Any],
) -> None:
    """The files of each pooling in `folder`, and the record of them.

    `depends_on` is everything that the results of `probe(pooling)` come from; files that came from the same are kept.
    """
    for pooling in poolings:
        path, stamp = folder / f"{pooling}.parquet", sha256_json({**depends_on, "pooling": pooling})
        if is_done(path, stamp):
            logger.info("%s: kept", pooling)
            continue
        start = time.perf_counter()
        made = Made(*probe(pooling))
        write(made.cells, made.predictions, path, stamp, made.probe)
        logger.info("%s: %d cells in %.1f s", pooling, made.cells.num_rows, time.perf_counter() - start)
    write_json(folder / RECORD, {"poolings": list(poolings)})


def of_heads(records: Sequence[str]) -> list[Path]:
    """The files of cells that the records of heads tell of."""
    files = [
        Path(record).with_name(f"{pooling}.parquet") for record in records for pooling in read_json(record)["poolings"]
    ]
    for file in files:
        if not file.is_file() or not predictions_path(file).is_file():
            raise UserError(str(file), "it or its predictions are gone", f"delete {file.parent / RECORD} and run again")
    return files
