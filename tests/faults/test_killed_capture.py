"""A capture that is killed outright or damaged, and then started again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saes_made import random_sae
from worlds import ROOT

from tessera import examples, shards
from tessera.files import read_json, write_json
from tessera.plan import Head, hidden_head
from tessera.snapshots import write_record

# Runs the workflow's capture script once for each line it is given, in a process of its own that need not import all
# again. That one counts its passes in a file, which outlives it. Several threads write, whatever this machine has.
PROGRAM = """
import gc, json, os, runpy, signal, subprocess, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
import pyarrow.compute
import transformers.models.gemma2.modeling_gemma2
from tessera import capture

def count_passes(file):
    passes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    read = capture.LanguageModel.read
    def counted(self, batch):
        os.write(passes, b".")
        return read(self, batch)
    capture.LanguageModel.read = counted

def die_at(number, delay):
    files, fsync = iter(range(1, 1_000_000)), os.fsync
    def kill():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)
    def counted(handle):
        if next(files) == number:
            threading.Thread(target=kill).start()
        fsync(handle)
    os.fsync = counted

gc.freeze()
for line in sys.stdin:
    asked = json.loads(line)
    if "command" in asked:
        subprocess.run(asked["command"], check=True)
        print(0, flush=True)
        continue
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    printed = os.open(asked["printed"], os.O_WRONLY | os.O_CREAT)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.cpu_count = lambda: 8
    count_passes(asked["passes"])
    if asked["die_at"]:
        die_at(*asked["die_at"])
    given = {name: SimpleNamespace(**of) for name, of in asked["snakemake"].items() if isinstance(of, dict)}
    snakemake = SimpleNamespace(**{**asked["snakemake"], **given, "config": {"capture": asked["effort"]}})
    runpy.run_path(asked["script"], {"snakemake": snakemake})
    sys.exit(0)
"""

# What a capture keeps: folders of shards.
HEADS = "s", "layer-1", "tokens"


@dataclass
class Ran:
    """What is left of one run of the script: its exit status, its passes, its log, and what it printed."""

    status: int
    passes: int
    log: str
    printed: str


class Captures:
    """Runs the capture script on one small model and dataset, into folders of choice."""

    def __init__(self, folder: Path, tiny_model: Path, within: tuple[str, ...] = ()):
        self.folder, self.runs = folder, 0
        texts = [" ".join(["word"] * (1 + i % 17)) + f" {i}" for i in range(300)]
        rows = [{"id": str(i), "text": text, "label": "a", "subset": "a", "group": i} for i, text in enumerate(texts)]
        table = pa.Table.from_pylist(rows, examples.schema("text"))
        pq.write_table(table, folder / "table.parquet")
        write_json(folder / "table.json", {"sha256": examples.digest(table.to_batches())})
        shutil.copytree(tiny_model, folder / "tiny")
        random_sae(folder / "s", "jumprelu", layer=1)
        for snapshot in ("tiny", "s"):
            write_record(folder / snapshot, {}, None, {})
        # Threads of a tiny matrix product wait for each other far longer than they compute.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [*within, sys.executable, "-c", PROGRAM]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def close(self) -> None:
        self.process.communicate()

    def _ask(self, **asked: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def command(self, *command: str) -> None:
        """Run a command where the captures run."""
        self._ask(command=command)

    def run(self, folder: Path, log: Path | None = None, die_at: tuple[int, float] | None = None) -> Ran:
        """Start a capture and wait for its end. `die_at` kills it some seconds after it comes to flush its nth file."""
        self.runs += 1
        passes, printed = (self.folder / f"{self.runs}.{kind}" for kind in ("passes", "printed"))
        log = log or self.folder / f"{self.runs}.log"
        status = self._ask(
            snakemake={
                "input": {
                    "table": str(self.folder / "table.parquet"),
                    "record": str(self.folder / "table.json"),
                    "model": str(self.folder / "tiny/revision.json"),
                    "saes": [str(self.folder / "s/revision.json")],
                },
                "output": [str(folder / shards.MANIFEST)],
                "log": [str(log)],
                "threads": 1,
                "wildcards": {"model": "tiny"},
                "params": {
                    "heads": [vars(head) for head in (hidden_head(1), Head("s", 1, "s"))],
                    "reading": {"dtype": "float32", "attention": "eager", "max_length": 64},
                    "code": "",
                },
            },
            effort={"device": "cpu", "batch_tokens": 128, "shard_tokens": 256},
            script=str(ROOT / "workflow/scripts/capture.py"),
            passes=str(passes),
            printed=str(printed),
            die_at=die_at,
        )
        # A log on the disk of the captures is theirs alone to see.
        logged = log.read_text() if log.exists() else ""
        counted = passes.stat().st_size if passes.exists() else 0
        return Ran(status, counted, logged, printed.read_text())


@dataclass
class Whole:
    """A capture that nothing happened to, which the others must equal."""

    folder: Path
    passes: int

    def __post_init__(self) -> None:
        self.manifest = read_json(self.folder / shards.MANIFEST)

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def check(self, folder: Path) -> None:
        """Fail unless the capture in `folder` has the same bytes, and no others beside them."""
        # The manifest names the hash of every shard.
        assert read_json(folder / shards.MANIFEST) == self.manifest
        assert shards.verify(folder) == []
        found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert found == {path.relative_to(self.folder) for path in self.files}


def make_whole(captures: Captures) -> Whole:
    ran = captures.run(captures.folder / "whole")
    assert ran.status == 0, ran.log + ran.printed
    return Whole(captures.folder / "whole", ran.passes)


def kept(folder: Path) -> dict[Path, int]:
    """The files of the shards that are noted as finished -> when they were written."""
    notes = [read_json(path)["entries"] for path in folder.glob("progress/*.json")]
    paths = [folder / head / entry["file"] for note in notes for head, entry in note.items()]
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Captures]:
    made = Captures(tmp_path_factory.mktemp("captures"), tiny_model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(captures: Captures) -> Whole:
    return make_whole(captures)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_resumes_with_fewer_passes_and_ends_with_the_same_bytes(
    tmp_path: Path, captures: Captures, whole: Whole, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    die_at = int(rng.integers(1, len(whole.files) * 3 // 4)), float(rng.uniform(0, 0.02))
    folder = tmp_path / "killed"
    assert captures.run(folder, die_at=die_at).status == -signal.SIGKILL
    assert not (folder / shards.MANIFEST).exists()
    before = kept(folder)
    resumed = captures.run(folder)
    assert resumed.status == 0, resumed.log
    assert 0 < resumed.passes < whole.passes + (not before)
    assert before.items() <= kept(folder).items()
    whole.check(folder)


def test_killed_again_and_again_it_comes_to_the_same_end(tmp_path: Path, captures: Captures, whole: Whole) -> None:
    rng, noted = np.random.default_rng(0), 0
    for _ in range(3):
        assert captures.run(tmp_path, die_at=(int(rng.integers(20, 40)), 0)).status == -signal.SIGKILL
        assert len(kept(tmp_path)) > noted
        noted = len(kept(tmp_path))
    assert captures.run(tmp_path).status == 0
    whole.check(tmp_path)


def test_damaged_shards_are_named_and_they_alone_are_made_anew(
    tmp_path: Path, captures: Captures, whole: Whole
) -> None:
    folder = shutil.copytree(whole.folder, tmp_path / "damaged")
    numbers = 3, 7, 11
    cut, altered, missing = (
        folder / head / shards.part_name(number) for head, number in zip(HEADS, numbers, strict=True)
    )
    cut.write_bytes(cut.read_bytes()[:-100])
    content = bytearray(altered.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    missing.unlink()
    problems = {problem.split(": ")[0]: problem for problem in shards.verify(folder)}
    assert problems.keys() == {str(path) for path in (cut, altered, missing)}
    assert " bytes where the manifest says " in problems[str(cut)]
    assert problems[str(altered)].endswith(": its content is not what the manifest says")
    assert problems[str(missing)].endswith(": missing")

    damaged = {shards.part_name(number) for number in numbers}
    others = {path: written for path, written in parts(folder).items() if path.name not in damaged}
    (folder / shards.MANIFEST).unlink()
    again = captures.run(folder)
    assert again.status == 0, again.log
    assert len(numbers) <= again.passes < whole.passes / 3
    # A pass serves all heads, so the same shard of every head is made anew.
    assert {path for path, written in parts(folder).items() if others.get(path) != written} == {
        folder / head / name for head in HEADS for name in damaged
    }
    whole.check(folder)


def parts(folder: Path) -> dict[Path, int]:
    """The files of all shards -> when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/part-*.parquet")}
