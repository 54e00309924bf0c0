"""One pass of one model over one dataset, kept for several heads.

The texts are tokenised at once, sorted by length, and cut into shards and within them into batches by a budget of
tokens. Each batch runs once, up to the deepest layer that is read; all heads take what they need from it. A thread
writes finished shards while the next one is computed. The manifest is written last, so its presence means that the
capture is complete, and it holds neither times nor host names, so the same inputs give the same manifest.

A finished shard is noted in progress/ with the hash of each of its files and a stamp of all that it was made from: inputs,
versions and code. A rerun keeps the shards whose stamp and hashes still hold and computes only the others. Batches never
cross shards, so a resumed capture has the bytes of an uninterrupted one.
"""

import base64
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tessera import shards
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json, sha256_file, sha256_json, write_json
from tessera.job import progress
from tessera.models import LanguageModel, Tokens, made_with
from tessera.plan import Head, claim
from tessera.saes import Sae

logger = logging.getLogger("tessera")

FORMAT = 1
TOKENS, PROGRESS = "tokens", "progress"
# A token whose vector is this many times longer than the median one counts as an outlier.
OUTLIER = 10.0
# Shards waiting to be written; more would only hold memory.
WRITE_AHEAD = 2


@dataclass(frozen=True)
class Reading:
    """How the model is to be read. All of it is part of a capture's identity."""

    dtype: str
    attention: str
    max_length: int


@dataclass(frozen=True)
class Effort:
    """Where and in what portions to work. None of it is part of a capture's identity."""

    device: str
    batch_tokens: int
    shard_tokens: int


def run(
    folder: Path,
    *,
    model: tuple[str, Path, str],
    saes: dict[str, tuple[Path, str]],
    heads: Sequence[Head],
    table: Table,
    dataset_sha256: str,
    reading: Reading,
    effort: Effort,
    code: str = "",
) -> None:
    """Bring the capture in `folder` to completion. `model` is (id, folder, sha256); `saes` maps ids to (folder, sha256).

    `code` is a digest of the code that computes it: shards made by other code are not kept.
    """
    started = time.monotonic()
    claim(folder, heads)
    model_id, model_folder, model_sha256 = model
    device = pick_device(effort.device)
    layers = [head.layer for head in heads]
    reader = LanguageModel(
        model_folder,
        layers=layers,
        dtype=reading.dtype,
        attention=reading.attention,
        device=device,
        key=f"models.{model_id}",
    )
    encoders = {sae: Sae.load(path, f"saes.{sae}", device) for sae, (path, _) in saes.items()}
    identity = {
        "dataset": dataset_sha256,
        "model": model_sha256,
        "saes": {sae: sha256 for sae, (_, sha256) in saes.items()},
        "dtype": reading.dtype,
        "attention": reading.attention,
        "max_length": reading.max_length,
        **made_with(),
    }
    work = Work(folder, list(heads), reader, encoders, table, identity, code)
    texts = tokenize(reader, table, reading.max_length)
    done = work.run(texts, effort)
    write_json(folder / shards.MANIFEST, work.manifest(texts, done))
    seconds = time.monotonic() - started
    write_json(folder / "run.json", {"seconds": round(seconds, 1), "device": device, "host": platform.node()})


def pick_device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def tokenize(reader: LanguageModel, table: Table, max_length: int) -> list[Tokens]:
    if table.texts is None:
        raise UserError(
            "datasets", "a language model cannot read images", "name its text datasets in models.*.datasets"
        )
    texts = reader.tokenize(table.texts, max_length)
    for name, tokens in zip(table.ids, texts, strict=True):
        if not any(tokens.content):
            raise UserError(
                f"example '{name}'", "it has no token that is not a special one", "remove it from the dataset"
            )
    return texts


def cut(order: Sequence[int], texts: Sequence[Tokens], budget: int) -> Iterator[list[int]]:
    """Consecutive runs of `order` that fit the budget when padded to their longest text, which is their first."""
    run: list[int] = []
    for row in order:
        longest = len(texts[run[0]].ids) if run else 0
        if run and longest * (len(run) + 1) > budget:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


class Work:
    """A capture under way: what is read, through what, and where it goes."""

    def __init__(
        self,
        folder: Path,
        heads: list[Head],
        reader: LanguageModel,
        encoders: dict[str, Sae],
        table: Table,
        identity: dict[str, Any],
        code: str,
    ):
        self.folder, self.heads, self.reader, self.encoders, self.table = folder, heads, reader, encoders, table
        self.identity = identity
        self.stamp = sha256_json([identity, [asdict(head) for head in heads], code])
        self.names = [TOKENS, *(head.id for head in heads)]

    def run(self, texts: list[Tokens], effort: Effort) -> dict[str, list[dict[str, Any]]]:
        """Head -> its shards' entries for the manifest. Finished shards of an earlier run are kept."""
        order = sorted(range(len(texts)), key=lambda row: (-len(texts[row].ids), row))
        pieces = list(cut(order, texts, effort.shard_tokens))
        entries: list[dict[str, Any]] = [{} for _ in pieces]
        waiting: list[Future[None]] = []
        total = sum(len(tokens.ids) for tokens in texts)
        bar = progress([], f"capture {self.folder.name}", total=total, unit="tok")
        with ThreadPoolExecutor(max_workers=1) as writer:
            for number, rows in enumerate(pieces):
                entries[number] = self._kept(number, rows)
                if not entries[number]:
                    tables = self._shard(rows, texts, effort.batch_tokens)
                    waiting.append(writer.submit(self._write, number, rows, tables, entries[number]))
                    while len(waiting) > WRITE_AHEAD:
                        waiting.pop(0).result()
                bar.update(sum(len(texts[row].ids) for row in rows))
            for future in waiting:
                future.result()
        bar.close()
        self._remove_strays(len(pieces))
        return {name: [entry[name] for entry in entries] for name in self.names}

    def _kept(self, number: int, rows: list[int]) -> dict[str, Any]:
        """The entries of this shard if an earlier run finished it and it is whole; nothing otherwise."""
        note = self.folder / PROGRESS / f"{number:05d}.json"
        if not note.is_file():
            return {}
        noted = read_json(note)
        if noted["stamp"] != self.stamp or noted["rows"] != sha256_json(rows):
            return {}
        for name, entry in noted["entries"].items():
            path = self.folder / name / entry["file"]
            if not path.is_file() or sha256_file(path) != entry["sha256"]:
                logger.warning("%s is missing or damaged and is made anew", path)
                return {}
        return noted["entries"]

    def _write(self, number: int, rows: list[int], tables: dict[str, pa.Table], entries: dict[str, Any]) -> None:
        for name, table in tables.items():
            path = self.folder / name / shards.part_name(number)
            shards.write(path, table)
            entries[name] = {
                "file": path.name,
                "rows": len(rows),
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
            }
        note = {"stamp": self.stamp, "rows": sha256_json(rows), "entries": entries}
        write_json(self.folder / PROGRESS / f"{number:05d}.json", note)

    def _remove_strays(self, count: int) -> None:
        """Shards of an earlier run that had more of them."""
        kept = {shards.part_name(number) for number in range(count)}
        for name in self.names:
            for path in (self.folder / name).iterdir():
                if path.name not in kept:
                    path.unlink()

    def _shard(self, rows: list[int], texts: list[Tokens], batch_tokens: int) -> dict[str, pa.Table]:
        collected: dict[str, list[dict[str, np.ndarray]]] = {head.id: [] for head in self.heads}
        for batch_rows in cut(rows, texts, batch_tokens):
            batch = [texts[row] for row in batch_rows]
            for part in self._batch(batch, batch_rows):
                for name, columns in part.items():
                    collected[name].append(columns)
        tables = {TOKENS: _tokens_table(rows, texts)}
        for head in self.heads:
            joined = {key: np.concatenate([c[key] for c in collected[head.id]]) for key in collected[head.id][0]}
            content = np.array([sum(texts[row].content) for row in rows])
            tables[head.id] = _sae_table(rows, content, joined) if head.sae else _hidden_table(rows, joined)
        return tables

    def _batch(self, batch: list[Tokens], rows: list[int]) -> Iterator[dict[str, dict[str, np.ndarray]]]:
        """What each head keeps of a batch; of its halves in turn if the whole does not fit the card."""
        try:
            yield self._read(batch, rows)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            logger.warning("out of memory with %d texts in a batch; going on with half as many", len(batch))
            torch.cuda.empty_cache()
            half = len(batch) // 2
            yield from self._batch(batch[:half], rows[:half])
            yield from self._batch(batch[half:], rows[half:])

    @torch.inference_mode()
    def _read(self, batch: list[Tokens], rows: list[int]) -> dict[str, dict[str, np.ndarray]]:
        found = self.reader.residuals(batch)
        length = max(len(tokens.ids) for tokens in batch)
        padded = np.zeros((len(batch), length), dtype=bool)
        for row, tokens in enumerate(batch):
            padded[row, : len(tokens.content)] = tokens.content
        content = torch.from_numpy(padded).to(self.reader.device)
        kept = {}
        for layer, states in found.items():
            vectors = states[content].to(torch.float32)
            self._check_finite(vectors, content, rows, layer)
            for head in self.heads:
                if head.layer == layer:
                    kept[head.id] = (
                        _encoded(self.encoders[head.sae], vectors) if head.sae else _pooled(states.float(), content)
                    )
        return kept

    def _check_finite(self, vectors: Tensor, content: Tensor, rows: list[int], layer: int) -> None:
        good = torch.isfinite(vectors).all(dim=1)
        if not bool(good.all()):
            first = int((~good).nonzero()[0])
            example = self.table.ids[rows[int(content.nonzero()[first][0])]]
            wrong = f"layer {layer} gives values that are not finite in {self.identity['dtype']}"
            raise UserError(f"example '{example}'", wrong, "run the model in bfloat16 or float32 (models.*.dtype)")

    def manifest(self, texts: list[Tokens], entries: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        cut_off = [name for name, tokens in zip(self.table.ids, texts, strict=True) if tokens.truncated]
        return {
            "format": FORMAT,
            "identity": self.identity,
            "examples": len(texts),
            "tokens": {
                "read": sum(len(tokens.ids) for tokens in texts),
                "content": sum(sum(tokens.content) for tokens in texts),
            },
            "truncated": {"count": len(cut_off), "examples": cut_off[:20]},
            "heads": {head.id: self._head_entry(head) for head in self.heads},
            "shards": entries,
        }

    def _head_entry(self, head: Head) -> dict[str, Any]:
        if head.sae is None:
            return {"kind": "hidden", "layer": head.layer}
        config = self.encoders[head.sae].config
        paths = sorted((self.folder / head.id).iterdir())
        return {
            "kind": "sae",
            "layer": head.layer,
            "sae": head.sae,
            "width": config.d_sae,
            "architecture": config.architecture,
            "health": health(paths, config.d_sae),
        }


def _encoded(sae: Sae, vectors: Tensor) -> dict[str, np.ndarray]:
    features = sae.encode(vectors)
    given = sae.normalised(vectors)
    left = given - sae.decode(features)
    return {
        "counts": features.counts.to(torch.int32).cpu().numpy(),
        "indices": features.indices.to(torch.int32).cpu().numpy(),
        "values": features.values.cpu().numpy(),
        "norms": (given**2).sum(dim=1).cpu().numpy(),
        "errors": (left**2).sum(dim=1).cpu().numpy(),
        "sum": given.sum(dim=0, dtype=torch.float64).cpu().numpy()[None],
    }


def _pooled(states: Tensor, content: Tensor) -> dict[str, np.ndarray]:
    """Last, mean and largest over the content positions of each text."""
    mask = content[:, :, None]
    places = torch.arange(content.shape[1], device=content.device)
    last = (places * content).argmax(dim=1)
    return {
        "last": states[torch.arange(len(states), device=states.device), last].cpu().numpy(),
        "mean": ((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy(),
        "max": states.masked_fill(~mask, -torch.inf).amax(dim=1).cpu().numpy(),
    }


def _tokens_table(rows: list[int], texts: list[Tokens]) -> pa.Table:
    content = [np.flatnonzero(texts[row].content).astype(np.int32) for row in rows]
    counts = np.array([len(places) for places in content])
    ids = [np.array(texts[row].ids, dtype=np.int32)[places] for row, places in zip(rows, content, strict=True)]
    columns = [
        pa.array(rows, pa.int32()),
        shards.ragged(np.concatenate(content), counts),
        shards.ragged(np.concatenate(ids), counts),
    ]
    return pa.Table.from_arrays(columns, schema=shards.TOKENS_SCHEMA)


def _sae_table(rows: list[int], content: np.ndarray, joined: dict[str, np.ndarray]) -> pa.Table:
    ends = np.cumsum(content)
    active = np.add.reduceat(joined["counts"], ends - content)
    columns = [
        pa.array(rows, pa.int32()),
        shards.ragged(joined["counts"], content),
        shards.ragged(joined["indices"], active),
        shards.ragged(joined["values"], active),
        shards.ragged(joined["norms"], content),
        shards.ragged(joined["errors"], content),
    ]
    # The sum of the vectors is what the explained variance needs besides the columns.
    total = base64.b64encode(joined["sum"].sum(axis=0).tobytes())
    return pa.Table.from_arrays(columns, schema=shards.SAE_SCHEMA.with_metadata({b"sum": total}))


def _hidden_table(rows: list[int], joined: dict[str, np.ndarray]) -> pa.Table:
    columns = [pa.array(rows, pa.int32()), *(shards.vectors(joined[name]) for name in ("last", "mean", "max"))]
    return pa.Table.from_arrays(columns, schema=shards.hidden_schema(joined["last"].shape[1]))


def health(paths: Sequence[Path], width: int) -> dict[str, float | int]:
    """How well an SAE does on this data: what it explains, how many features it uses, and how the tokens' norms lie."""
    alive = np.zeros(width, dtype=bool)
    counts, norms, errors, total = [], [], [], np.zeros(1)
    for path in paths:
        table = shards.read(path)
        alive[shards.flat(table, "indices")] = True
        counts.append(shards.flat(table, "counts"))
        norms.append(shards.flat(table, "norms").astype(np.float64))
        errors.append(shards.flat(table, "errors").astype(np.float64))
        total = total + np.frombuffer(base64.b64decode(table.schema.metadata[b"sum"]))
    squared = np.concatenate(norms)
    variance = squared.sum() - (total**2).sum() / len(squared)
    length = np.sqrt(squared)
    median = float(np.median(length))
    return {
        "tokens": len(squared),
        "l0": float(np.concatenate(counts).mean()),
        "dead_fraction": float(1 - alive.mean()),
        "explained_variance": float(1 - np.concatenate(errors).sum() / variance) if variance > 0 else 0.0,
        "norm_median": median,
        "norm_p99": float(np.quantile(length, 0.99)),
        "norm_max": float(length.max()),
        "outlier_share": float((length > OUTLIER * median).mean()),
    }
