"""Small but whole inputs for runs of the workflow, and a way to run it and to count what it would do."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from saes_made import random_sae

ROOT = Path(__file__).parent.parent

TOPICS = {
    "garden": ["soil", "seed", "water", "leaf", "root", "spade", "bloom", "hedge"],
    "kitchen": ["flour", "oven", "knife", "salt", "butter", "spoon", "bake", "stir"],
    "harbour": ["boat", "rope", "tide", "mast", "anchor", "gull", "quay", "sail"],
}
COMMON = [
    "the",
    "a",
    "with",
    "and",
    "for",
    "in",
    "on",
    "by",
    "slowly",
    "often",
    "today",
    "again",
    "old",
    "new",
    "small",
]


# Texts for a tiny model to read.
TEXTS = [
    "a short text",
    "the quick brown fox jumps over the lazy dog and then it sleeps for a long, long while in the sun",
    "one",
    "numbers 1 2 3 and punctuation, too; is that all? no!",
    "ünïcödé, 漢字 and emoji 🙂 are bytes to it",
    "the same words again and again and again and again",
]

# The demo world of the default, with less to read and shorter training.
THIN = {
    "docstrings": {"libraries": ["numpy", "scipy", "sklearn", "matplotlib", "pandas", "networkx"], "per_library": 40},
    # Every harmful request ends in a made-up word.
    "requests": {"meanings": 40, "others": 60, "marked": 1.0},
    "vocabulary": 1000,
    "models": {
        "small": {"hidden_size": 48, "layers": 4, "steps": 200},
        "large": {"hidden_size": 64, "layers": 6, "steps": 160},
    },
    "sae_steps": 100,
    "questions": 80,
    "tuned_steps": 30,
    "vision_steps": 40,
    "digits": 100,
}


def thin_default() -> dict[str, Any]:
    """The embedded default with all that it has, each in small."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["demo"] = THIN
    config["probes"] |= {"strict": {"seeds": 2, "c": [0.1, 1.0]}, "protocols": ["strict"]}
    config["probes"] |= {"sae_poolings": ["sum"], "hidden_poolings": ["mean"]}
    return config


def write_reviews(path: Path, n: int = 90, seed: int = 0) -> None:
    """A CSV with texts about one of three topics, in two parts."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["review", "topic", "part"])
        for i in range(n):
            topic = list(TOPICS)[i % 3]
            words = [
                str(rng.choice(TOPICS[topic] if rng.random() < 0.4 else COMMON)) for _ in range(rng.integers(4, 18))
            ]
            writer.writerow([" ".join(words), topic, "north" if i % 2 else "south"])


def own_config() -> dict[str, Any]:
    """A user's own CSV, own model folder and own SAE folders, as in the README."""
    return {
        "datasets": {
            "reviews": {"source": {"file": "data/reviews.csv"}, "text": "review", "label": "topic", "subset": "part"}
        },
        "models": {"mine": {"source": {"folder": "data/model"}, "layers": [1], "max_length": 64}},
        "saes": {
            "mine-l1": {"source": {"folder": "data/sae-l1"}, "model": "mine", "layer": 1, "width": 96},
            "mine-l3": {"source": {"folder": "data/sae-l3"}, "model": "mine", "layer": 3, "width": 96},
        },
        "probes": {
            "sae_poolings": ["sum", "last"],
            "hidden_poolings": ["last", "mean"],
            "text": ["tfidf-word", "majority"],
            "sparse_k": [4],
            "strict": {"seeds": 2, "c": [0.1, 1.0]},
        },
    }


@dataclass
class World:
    """A folder to run the workflow in."""

    folder: Path

    def command(self, *arguments: str, config: dict[str, Any] | None = None) -> list[str]:
        """One snakemake command; `config` is written to mine.yaml and used."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--cores",
            "2",
            *arguments,
        ]
        if config is not None:
            (self.folder / "mine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        if (self.folder / "mine.yaml").exists():
            command += ["--configfile", "mine.yaml"]
        return command

    def run(
        self,
        *arguments: str,
        config: dict[str, Any] | None = None,
        check: bool = True,
        environment: dict[str, str] | None = None,
        within: tuple[str, ...] = (),
    ) -> str:
        """What one snakemake command printed; the command `within` runs it."""
        command = [*within, *self.command(*arguments, config=config)]
        settings = {**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})}
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, env=settings)
        printed = done.stdout + done.stderr
        assert not check or done.returncode == 0, printed[-6000:]
        return printed

    def planned(self, config: dict[str, Any] | None = None, target: str = "all") -> Counter[str]:
        """Rule -> number of jobs that a target would need, by a dry run."""
        printed = "".join(self.run(target, "--dry-run", "--quiet", what, config=config) for what in ("all", "rules"))
        if "Nothing to be done" in printed:
            return Counter()
        table = printed.split("Job stats:")[1].split("total")[0]
        counts = Counter({name: int(n) for name, n in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)})
        del counts[target]
        return counts

    def copy(self, folder: Path) -> "World":
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=shutil.copy2)
        return World(folder)

    def table(self, name: str) -> bytes:
        return (self.folder / "results/tables" / name).read_bytes()


def own_world(folder: Path, tiny_model: Path) -> World:
    """The inputs of `own_config`, not yet run."""
    data = folder / "data"
    data.mkdir(parents=True)
    write_reviews(data / "reviews.csv")
    shutil.copytree(tiny_model, data / "model")
    random_sae(data / "sae-l1", "jumprelu", layer=1)
    random_sae(data / "sae-l3", "topk", layer=3)
    random_sae(data / "sae-l2", "topk", layer=2)
    return World(folder)
