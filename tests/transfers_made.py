"""A results folder as the stages before a transfer leave it, made of matrices: for tests of transfers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera import examples, shards
from tessera.files import sha256_file, write_json

STRICT = {"inner_folds": 2, "c": [0.1, 1.0]}


def dataset(
    results: Path,
    name: str,
    labels: Sequence[str],
    *,
    subsets: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    images: Sequence[bytes] | None = None,
    ids: Sequence[str] | None = None,
) -> None:
    """A dataset table and its record."""
    n = len(labels)
    content = {"image": images} if images is not None else {"text": texts or [f"{name} {row}" for row in range(n)]}
    columns: dict[str, Any] = {"id": ids or [str(row) for row in range(n)], **content, "label": list(labels)}
    columns |= {"subset": list(subsets or ["all"] * n), "split": [None] * n, "group": list(groups or range(n))}
    path = results / "datasets" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns, schema=examples.schema("text" if images is None else "image"))
    pq.write_table(table, path)
    write_json(path.with_suffix(".json"), {"sha256": examples.digest(table.to_batches())})


def capture(results: Path, model: str, name: str, heads: Mapping[str, np.ndarray]) -> str:
    """A capture of hidden states, given as a matrix a head; every pooling is the matrix itself."""
    folder = results / "activations" / model / name / "0" / "x"
    entries, files = {}, {}
    for head, X in heads.items():
        vectors = pa.array(X.astype(np.float32).tolist(), pa.list_(pa.float32(), X.shape[1]))
        columns = {"row": pa.array(range(len(X)), pa.int32()), "last": vectors, "mean": vectors, "max": vectors}
        path = folder / head / "part-00000.parquet"
        shards.write(path, pa.table(columns, schema=shards.hidden_schema(X.shape[1])))
        files[head] = [{"file": path.name, "sha256": sha256_file(path)}]
        entries[head] = {"kind": "hidden", "size": X.shape[1]}
    write_json(
        folder / "manifest.json",
        {"heads": entries, "shards": files},
    )
    return str(folder / "manifest.json")


def given(
    model: str, head: str, manifests: Mapping[str, str], *, arm: str = "hidden", layer: int = 0
) -> dict[str, Any]:
    """An entry of a transfer's inputs."""
    return {
        "arm": arm,
        "model": model,
        "head": head,
        "layer": layer,
        "width": None,
        "poolings": ["mean"],
        "thresholds": [None],
        "manifests": dict(manifests),
    }


def settings(kind: str, tables: Sequence[str], inputs: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The plain settings of a transfer, as a study makes them."""
    return {
        "kind": kind,
        "folds": 3,
        "text": [],
        "strict": STRICT,
        "l1_penalties": [0.5, 0.1],
        "tables": list(tables),
        "inputs": list(inputs),
        **more,
    }


def cells(folder: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(folder / "cells.parquet").read().to_pylist()


def separable(codes: np.ndarray, seed: int, width: int = 6, distance: float = 2.0) -> np.ndarray:
    """Features whose first column tells labels 0 and 1 apart, by so many standard deviations."""
    X = np.random.default_rng(seed).standard_normal((len(codes), width)).astype(np.float32)
    X[:, 0] += distance * (codes - 0.5)
    return X
