"""One pass of one model over one dataset, kept for several heads.

The texts (or images, which stand among tokens like words) are tokenised at once, sorted by length, and cut into shards
and within them into batches by a budget of tokens. Each batch runs once, up to the deepest layer that is read; all heads
take what they need from it. A thread writes finished shards while the next one is computed. The manifest is written
last, so its presence means that the capture is complete, and it holds neither times nor host names, so the same inputs
give the same manifest.

A finished shard is noted in progress/ with the hash of each of its files and a stamp of all that it was made from: inputs,
versions and code. A rerun keeps the shards whose stamp and hashes still hold and computes only the others. Batches never
cross shards, so a resumed capture has the bytes of an uninterrupted one.
"""

import logging
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera import cards, columns, health, shards
from tessera.columns import Array
from tessera.errors import UserError
from tessera.examples import Table
from tessera.files import read_json, sha256_file, sha256_json, write_json
from tessera.job import progress
from tessera.models import LanguageModel, Tokens, made_with
from tessera.passes import Kept, Reader, open_saes
from tessera.pictures import Picture
from tessera.plan import Head, claim
from tessera.precision import flipped_shares

logger = logging.getLogger("tessera")

FORMAT = 2
TOKENS, PROGRESS = "tokens", "progress"
# Shards waiting to be written; more would only hold memory.
WRITE_AHEAD = 2
# Content tokens that explained variance is measured on, and those that are read again in float32.
GAUGED, READ_AGAIN = 8192, 2048


@dataclass(frozen=True)
class Reading:
    """How the model is to be read. All of it is part of a capture's identity."""

    dtype: str
    attention: str
    max_length: int
    encode: str = "float32"
    chat: bool = False

    @property
    def exact(self) -> bool:
        return self.dtype == "float32" and self.encode == "float32"


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
    with cards.take(effort.device) as device:
        language_model = LanguageModel(
            model_folder,
            places=[head.place for head in heads],
            dtype=reading.dtype,
            attention=reading.attention,
            device=device,
            key=f"models.{model_id}",
            chat=reading.chat,
            images=table.images is not None,
        )
        encoders = open_saes({sae: path for sae, (path, _) in saes.items()}, device)
        reader = Reader(language_model, encoders, heads, encode=reading.encode, budget=effort.batch_tokens)
        identity = {
            "dataset": dataset_sha256,
            "model": model_sha256,
            "saes": {sae: sha256 for sae, (_, sha256) in saes.items()},
            **asdict(reading),
            "chat": language_model.template.sha256 if language_model.template else None,
            **made_with(),
            **({"images": language_model.images.identity} if language_model.images else {}),
        }
        work = Work(folder, reader, table, identity, code)
        texts = tokenize(language_model, table, reading.max_length)
        opened = time.monotonic()
        done = work.run(texts, effort.shard_tokens)
        flips = {} if reading.exact else work.flips(texts)
        write_json(folder / shards.MANIFEST, work.manifest(texts, done, flips))
    ended = time.monotonic()
    seconds = {"seconds": round(ended - started, 1), "to_open": round(opened - started, 1)}
    write_json(folder / "run.json", {**seconds, "device": device, "host": platform.node()})


def tokenize(model: LanguageModel, table: Table, max_length: int) -> list[Tokens]:
    texts = model.tokenize(table.texts, max_length) if table.texts is not None else _pictures(model, table)
    mend = "remove it from the dataset"
    for name, tokens in zip(table.ids, texts, strict=True):
        if not tokens.content.any():
            raise UserError(f"example '{name}'", "it has no token that is not a special one", mend)
        if tokens.picture is None and tokens.ids.max() >= model.vocabulary:
            token = model.tokenizer.convert_ids_to_tokens(int(tokens.ids.max()))
            raise UserError(f"example '{name}'", f"it has '{token}' in it, which is no word to the model", mend)
    return texts


def _pictures(model: LanguageModel, table: Table) -> list[Tokens]:
    return model.see([Picture(name, image) for name, image in zip(table.ids, table.images or [], strict=True)])


def cut(order: Sequence[int], texts: Sequence[Tokens], budget: int) -> Iterator[list[int]]:
    """Consecutive runs of `order` that fit the budget when padded to their longest text, which is their first."""
    run: list[int] = []
    for row in order:
        longest = len(texts[run[0]]) if run else 0
        if run and longest * (len(run) + 1) > budget:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def spread(texts: Sequence[Tokens], budget: int) -> list[int]:
    """Rows spread evenly over the dataset that have about `budget` content tokens together; all rows if they have fewer."""
    total = sum(int(tokens.content.sum()) for tokens in texts)
    count = min(len(texts), max(1, len(texts) * budget // total))
    return [place * len(texts) // count for place in range(count)]


class Work:
    """A capture under way: what is read, and where it goes."""

    def __init__(self, folder: Path, reader: Reader, table: Table, identity: dict[str, Any], code: str):
        self.folder, self.reader, self.table, self.identity = folder, reader, table, identity
        self.heads = reader.heads
        self.stamp = sha256_json([identity, [asdict(head) for head in self.heads], code])
        self.names = [TOKENS, *(head.id for head in self.heads)]

    def run(self, texts: list[Tokens], shard_tokens: int) -> dict[str, list[dict[str, Any]]]:
        """Head -> its shards' entries for the manifest. Finished shards of an earlier run are kept."""
        order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), row))
        pieces = list(cut(order, texts, shard_tokens))
        entries: list[dict[str, Any]] = [{} for _ in pieces]
        gauging = set(spread(texts, GAUGED))
        # A bar that counts what is kept as done would promise the rest at a speed it does not have.
        kept = {number: found for number, rows in enumerate(pieces) if (found := self._kept(number, rows))}
        tokens = [sum(len(texts[row]) for row in rows) for rows in pieces]
        bar = progress([], f"capture {self.folder.name}", total=sum(tokens), unit="tok")
        bar.update(sum(tokens[number] for number in kept))
        bar.unpause()
        if kept:
            logger.info("%d of %d shards are kept from an earlier run", len(kept), len(pieces))
        with Writing(self.folder, self.stamp) as writing:
            for number, rows in enumerate(pieces):
                if number in kept:
                    entries[number] = kept[number]
                    continue
                of_shard = [texts[row] for row in rows]
                found = self.reader.shard(
                    [self.table.ids[row] for row in rows], of_shard, [row in gauging for row in rows]
                )
                writing.add(number, rows, self._tables(rows, of_shard, found), entries[number])
                bar.update(tokens[number])
        bar.close()
        self._remove_strays(len(pieces))
        return {name: [entry[name] for entry in entries] for name in self.names}

    def flips(self, texts: list[Tokens]) -> dict[str, float]:
        """What reading in float32 would change, on a sample of the texts."""
        rows = sorted(spread(texts, READ_AGAIN), key=lambda row: (-len(texts[row]), row))
        batches = [[texts[row] for row in batch] for batch in cut(rows, texts, self.reader.budget)]
        return flipped_shares(self.reader, batches)

    def _kept(self, number: int, rows: list[int]) -> dict[str, Any]:
        """The entries of this shard if an earlier run finished it and it is whole; nothing otherwise."""
        note = self.folder / PROGRESS / f"{number:05d}.json"
        if not note.is_file():
            return {}
        noted: dict[str, Any] = read_json(note)
        if noted["stamp"] != self.stamp or noted["rows"] != sha256_json(rows):
            return {}
        for name, entry in noted["entries"].items():
            path = self.folder / name / entry["file"]
            if not path.is_file() or sha256_file(path) != entry["sha256"]:
                logger.warning("%s is missing or damaged and is made anew", path)
                return {}
        entries: dict[str, Any] = noted["entries"]
        return entries

    def _remove_strays(self, count: int) -> None:
        """Shards of an earlier run that had more of them."""
        kept = {shards.part_name(number) for number in range(count)}
        for name in self.names:
            for path in (self.folder / name).iterdir():
                if path.name not in kept:
                    path.unlink()

    def _tables(self, rows: list[int], texts: list[Tokens], kept: Mapping[str, Kept]) -> dict[str, "Build"]:
        """Head -> what builds its table, which the writer's threads do."""
        given = np.array(rows, dtype=np.int32)
        content = np.array([tokens.content.sum() for tokens in texts])
        return {
            TOKENS: lambda: tokens_table(given, texts),
            **{head.id: _build(head, given, content, kept[head.id]) for head in self.heads},
        }

    def manifest(
        self, texts: list[Tokens], entries: dict[str, list[dict[str, Any]]], flips: Mapping[str, float]
    ) -> dict[str, Any]:
        cut_off = [name for name, tokens in zip(self.table.ids, texts, strict=True) if tokens.truncated]
        return {
            "format": FORMAT,
            "identity": self.identity,
            "examples": len(texts),
            "tokens": {
                "read": sum(map(len, texts)),
                "content": sum(int(tokens.content.sum()) for tokens in texts),
            },
            "truncated": {"count": len(cut_off), "examples": cut_off[:20]},
            "heads": {head.id: self._head_entry(head, flips.get(head.id)) for head in self.heads},
            "shards": entries,
        }

    def _head_entry(self, head: Head, flipped: float | None) -> dict[str, Any]:
        where = {"layer": head.layer, "site": head.site}
        if head.sae is None:
            size = self.reader.model.size(head.site)
            return {"kind": "states" if head.every_token else "hidden", "size": size, **where}
        config = self.reader.saes[head.sae].config
        paths = sorted((self.folder / head.id).iterdir())
        return {
            "kind": "sae",
            **where,
            "sae": head.sae,
            "width": config.d_sae,
            "architecture": config.architecture,
            "health": {**health.of_head(paths, config.d_sae), "flipped_share": flipped},
        }


# --- writing -------------------------------------------------------------------------------------------------------

Build = Callable[[], pa.Table]


class Writing:
    """Writes shards by threads of its own while the next ones are computed, and notes each that is complete."""

    def __init__(self, folder: Path, stamp: str):
        self.folder, self.stamp = folder, stamp
        # Compressing leaves Python to itself, so threads pay, but on a small machine the model needs the cores.
        self.pool = ThreadPoolExecutor(max_workers=max(1, min(8, (os.cpu_count() or 1) // 2)))
        self.waiting: deque[tuple[int, list[int], dict[str, Future[dict[str, Any]]], dict[str, Any]]] = deque()

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            while self.waiting and kind is None:
                self._note_oldest()
        finally:
            self.pool.shutdown(cancel_futures=True)

    def add(self, number: int, rows: list[int], tables: Mapping[str, Build], entries: dict[str, Any]) -> None:
        """Write a shard's files and fill in its entries for the manifest, soon; wait first if others are in line."""
        futures = {name: self.pool.submit(self._write, name, number, build) for name, build in tables.items()}
        self.waiting.append((number, rows, futures, entries))
        while len(self.waiting) > WRITE_AHEAD:
            self._note_oldest()

    def _write(self, name: str, number: int, build: Build) -> dict[str, Any]:
        path = self.folder / name / shards.part_name(number)
        table = build()
        shards.write(path, table)
        return {
            "file": path.name,
            "rows": table.num_rows,
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }

    def _note_oldest(self) -> None:
        number, rows, futures, entries = self.waiting.popleft()
        entries.update({name: future.result() for name, future in futures.items()})
        note = {"stamp": self.stamp, "rows": sha256_json(rows), "entries": entries}
        write_json(self.folder / PROGRESS / f"{number:05d}.json", note)


# --- tables --------------------------------------------------------------------------------------------------------


def _build(head: Head, rows: Array, content: Array, kept: Kept) -> Build:
    if head.sae:
        return lambda: sae_table(rows, content, kept)
    if head.every_token:
        return lambda: states_table(rows, content, kept)
    return lambda: hidden_table(rows, kept)


def tokens_table(rows: Array, texts: Sequence[Tokens]) -> pa.Table:
    places = [np.flatnonzero(tokens.content).astype(np.int32) for tokens in texts]
    counts = np.array(list(map(len, places)))
    ids = np.concatenate([tokens.ids[tokens.content] for tokens in texts])
    made = [columns.numbers(rows), columns.ragged(np.concatenate(places), counts), columns.ragged(ids, counts)]
    return pa.Table.from_arrays(made, schema=shards.TOKENS_SCHEMA)


def sae_table(rows: Array, content: Array, kept: Kept) -> pa.Table:
    counts = kept["counts"]
    active = np.add.reduceat(counts, np.cumsum(content) - content)
    made = [
        columns.numbers(rows),
        columns.ragged(counts, content),
        columns.ragged(kept["indices"], active),
        columns.ragged(kept["values"], active),
        columns.ragged(kept["norms"], content),
    ]
    assert kept.sample is not None  # noqa: S101 - every head with an SAE has one
    schema = shards.SAE_SCHEMA.with_metadata({health.SAMPLE: kept.sample.dump()})
    return pa.Table.from_arrays(made, schema=schema)


def hidden_table(rows: Array, kept: Kept) -> pa.Table:
    made = [columns.numbers(rows), *(columns.vectors(kept[name]) for name in ("last", "mean", "max"))]
    return pa.Table.from_arrays(made, schema=shards.hidden_schema(kept["last"].shape[1]))


def states_table(rows: Array, content: Array, kept: Kept) -> pa.Table:
    states = kept["states"]
    made = [columns.numbers(rows), columns.ragged(states, content * (len(states) // content.sum()))]
    return pa.Table.from_arrays(made, schema=shards.STATES_SCHEMA)
