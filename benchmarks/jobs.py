"""What Snakemake costs beyond its jobs, in a study of 100 datasets x 2 models x 6 heads on tiny data.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/jobs.py`. Two runs, on one core, of which
every job is a process of its own whose seconds Snakemake notes:

- hollow: this workflow, with scripts that do nothing but touch their outputs;
- bare: a workflow of one rule with as many such jobs.

`--whole FOLDER` is one run instead, on all cores, of this workflow as it is, up to its report: half an hour on two cores. The
folder is made, and stays to be looked at. `--datasets N` makes it a study of N datasets.

What a run takes beyond the sum of its jobs' seconds, by job, is Snakemake's own: looking at files, choosing, noting. On
several cores the seconds of a run are multiplied by them first, so a core that waits counts too.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from world import make_model, make_sae

ROOT = Path(__file__).parent.parent
DATASETS, MODELS, LAYERS, EXAMPLES = 100, 2, (1, 2), 40
SIZE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}

HOLLOW = """
from pathlib import Path
for output in snakemake.output:
    Path(output).touch()
"""
BARE = """
rule all:
    input: [f"out/{{i}}.txt" for i in range({jobs})]
rule one:
    output: "out/{{i}}.txt"
    benchmark: "benchmarks/{{i}}.tsv"
    script: "hollow.py"
"""


@dataclass
class Ran:
    """How long a run took, and its jobs."""

    name: str
    jobs: int
    cores: int
    wall: float
    inside: float

    def __str__(self) -> str:
        taken = self.wall * self.cores
        beyond = (taken - self.inside) / self.jobs
        seconds = f"{self.wall:,.0f} | {self.inside / self.jobs:.2f} | {beyond:.2f} | {taken / self.inside:.2f}"
        return f"| {self.name} | {self.jobs:,} | {seconds} |"


def config(datasets: int) -> dict[str, Any]:
    """Two layers and four SAEs a model; every dataset is read by both."""
    saes = {
        f"m{m}-l{layer}-{width}": {"source": {"folder": f"data/m{m}-l{layer}-{width}"}, "model": f"m{m}"}
        | {"layer": layer, "width": width}
        for m in range(MODELS)
        for layer in LAYERS
        for width in (128, 256)
    }
    return {
        "datasets": {f"d{d}": {"source": {"file": f"data/d{d}.csv"}} for d in range(datasets)},
        "models": {f"m{m}": {"source": {"folder": "data/model"}, "layers": list(LAYERS)} for m in range(MODELS)},
        "saes": saes,
        "capture": {"threads": 1},
        "probes": {
            "sae_poolings": ["sum"],
            "thresholds": [None],
            "hidden_poolings": ["mean"],
            "text": ["majority"],
            "protocols": ["strict"],
            "strict": {"seeds": 2, "inner_folds": 2, "c": [1.0]},
        },
    }


def make_world(folder: Path, datasets: int) -> None:
    """Data of the study: words of which some go with the label, a random model and random SAEs."""
    data = folder / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for d in range(datasets):
        with (data / f"d{d}.csv").open("w", newline="") as handle:
            rows = csv.writer(handle)
            rows.writerow(["text", "label"])
            for i in range(EXAMPLES):
                words = rng.integers(3, 200, size=12) + 100 * (i % 2) * (rng.random(12) < 0.3)
                rows.writerow([" ".join(f"w{word}" for word in words), "ab"[i % 2]])
    make_model(data / "model", SIZE, "float32")
    states = torch.randn(256, SIZE["hidden_size"], generator=torch.Generator().manual_seed(0))
    for name, sae in config(datasets)["saes"].items():
        make_sae(data / name, states, sae["layer"], sae["width"])
    (folder / "mine.yaml").write_text(yaml.safe_dump(config(datasets)))


def run(name: str, folder: Path, *arguments: str, cores: int = 1) -> Ran:
    """Run a workflow; its jobs are those that left their seconds."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", str(cores), "--quiet", "all"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)  # noqa: S603 - our own
    wall = time.perf_counter() - start
    seconds = list(job_seconds(folder))
    return Ran(name, len(seconds), cores, wall, sum(seconds))


def job_seconds(folder: Path) -> Iterator[float]:
    for place in ("benchmarks", "results/benchmarks"):
        for path in (folder / place).rglob("*.tsv"):
            with path.open(newline="") as handle:
                yield from (float(row["s"]) for row in csv.DictReader(handle, delimiter="\t"))


@contextmanager
def hollow_project() -> Iterator[Path]:
    """A copy of the project whose scripts do nothing."""
    with tempfile.TemporaryDirectory() as name:
        for part in ("Snakefile", "workflow", "src", "config", "resources", "envs", "profiles", "CITATION.cff"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(name) / part)
        for script in (Path(name) / "workflow/scripts").glob("*.py"):
            script.write_text(HOLLOW)
        yield Path(name)


def empty(folder: Path, datasets: int) -> list[Ran]:
    """The hollow run, and the bare one of as many jobs."""
    make_world(folder / "hollow", datasets)
    with hollow_project() as project:
        os.environ["PYTHONPATH"] = str(project / "src")
        snakefile = ["--snakefile", str(project / "Snakefile"), "--configfile", "mine.yaml"]
        hollow = run("hollow", folder / "hollow", "probes", "checks", *snakefile)
    (folder / "bare").mkdir()
    (folder / "bare/Snakefile").write_text(BARE.format(jobs=hollow.jobs))
    (folder / "bare/hollow.py").write_text(HOLLOW)
    return [hollow, run("bare", folder / "bare")]


def whole(folder: Path, datasets: int) -> Ran:
    """The run of the project as it is."""
    make_world(folder, datasets)
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    snakefile = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "mine.yaml"]
    return run("whole", folder, *snakefile, cores=os.cpu_count() or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="What Snakemake costs beyond its jobs.")
    parser.add_argument("--datasets", type=int, default=DATASETS)
    parser.add_argument("--whole", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    if asked.whole:
        ran = [whole(asked.whole, asked.datasets)]
    else:
        with tempfile.TemporaryDirectory() as name:
            ran = empty(Path(name), asked.datasets)
    print("| run | jobs | seconds | of a job | beyond it, a job | ratio |\n|---|---|---|---|---|---|")
    print("\n".join(map(str, ran)))


if __name__ == "__main__":
    main()
