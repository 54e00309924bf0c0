"""How well an SAE does: on the data of one capture, and as a table over all of them."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera import shards
from tessera.columns import Array, flat
from tessera.files import read_json

# A token whose vector is this many times longer than the median one counts as an outlier.
OUTLIER = 10.0

MEASURES = (
    *("explained_variance", "l0", "dead_fraction", "norm_median", "norm_p99", "norm_max", "outlier_share"),
    "flipped_share",
)
SCHEMA = pa.schema(
    [("sae", pa.string()), ("model", pa.string()), ("layer", pa.int32()), ("width", pa.int32())]
    + [("architecture", pa.string()), ("dataset", pa.string()), ("tokens", pa.int64())]
    + [(name, pa.float64()) for name in MEASURES]
)

# The key of a shard's metadata under which its share of the sample lies.
SAMPLE = b"sample"


class Sample:
    """Sums over sampled tokens, from which explained variance follows: what an SAE is given, and what it leaves of it.

    A sample suffices, and decoding costs as much memory traffic as encoding.
    """

    def __init__(self, size: int):
        self.tokens, self.squares, self.left, self.total = 0, 0.0, 0.0, np.zeros(size)

    def add(self, given: Array, rebuilt: Array) -> None:
        wide = given.astype(np.float64)
        self.tokens += len(wide)
        self.squares += float((wide**2).sum())
        self.left += float(((wide - rebuilt) ** 2).sum())
        self.total += wide.sum(axis=0)

    def merge(self, other: "Sample") -> None:
        self.tokens, self.squares, self.left = (
            self.tokens + other.tokens,
            self.squares + other.squares,
            self.left + other.left,
        )
        self.total = self.total + other.total

    def dump(self) -> bytes:
        return base64.b64encode(np.array([self.tokens, self.squares, self.left, *self.total]).tobytes())

    @classmethod
    def load(cls, dumped: bytes) -> "Sample":
        values = np.frombuffer(base64.b64decode(dumped))
        found = cls(len(values) - 3)
        found.tokens, found.squares, found.left, found.total = int(values[0]), values[1], values[2], values[3:]
        return found

    @property
    def explained_variance(self) -> float | None:
        """The share of the variance that the SAE's reconstruction explains; None where nothing varies."""
        if not self.tokens:
            return None
        variance = self.squares - float((self.total**2).sum()) / self.tokens
        return float(1 - self.left / variance) if variance > 0 else None


def of_head(paths: Sequence[Path], width: int) -> dict[str, float | int | None]:
    """What an SAE explains of this data, how many features it uses, and how the lengths of the tokens' vectors lie."""
    alive, active, lengths = np.zeros(width, dtype=bool), 0, []
    sample: Sample | None = None
    for path in paths:
        table = shards.read(path, ["indices", "norms"])
        indices = flat(table.column("indices"))
        alive[indices] = True
        active += len(indices)
        lengths.append(flat(table.column("norms")))
        part = Sample.load(table.schema.metadata[SAMPLE])
        if sample is None:
            sample = part
        else:
            sample.merge(part)
    length = np.concatenate(lengths).astype(np.float64)
    median = float(np.median(length))
    return {
        "tokens": len(length),
        "l0": active / len(length),
        "dead_fraction": float(1 - alive.mean()),
        "explained_variance": sample.explained_variance if sample else None,
        "explained_variance_tokens": sample.tokens if sample else 0,
        "norm_median": median,
        "norm_p99": float(np.quantile(length, 0.99)),
        "norm_max": float(length.max()),
        "outlier_share": float((length > OUTLIER * median).mean()),
    }


def table(models: Mapping[str, str], records: Sequence[Path], manifests: Sequence[Path]) -> pa.Table:
    """A row for each SAE as its own record has it (`dataset` is null), then one for each dataset it has read.

    `models` says which model each SAE reads; records and manifests are told by the folders they lie in.
    """
    rows: list[dict[str, Any]] = []
    for path in records:
        record = read_json(path)
        sae = path.parent.name
        shape = {"layer": record["layer"], "width": record["d_sae"], "architecture": record["architecture"]}
        rows.append({"sae": sae, "model": models[sae], **shape, **record.get("demo", {}), "dataset": None})
    for path in manifests:
        model, dataset = path.parts[-4:-2]
        for head, entry in read_json(path)["heads"].items():
            if entry["kind"] == "sae" and head in models:
                shape = {key: entry[key] for key in ("layer", "width", "architecture")}
                rows.append({"sae": head, "model": model, **shape, **entry["health"], "dataset": dataset})
    rows.sort(key=lambda row: (row["sae"], row["model"], row["dataset"] or ""))
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
