"""A study whose inputs come from a Hub of our own and are shown to one token alone, and what each of its stages makes.

It has what a run can have and is small: several shards, two SAEs, a transfer. What happens to a run that is disturbed is
held against one that was not.
"""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
from hub_served import REVISION, SECRET, Hub
from saes_made import random_sae
from worlds import World, own_config, write_reviews

from tessera import snapshots
from tessera.files import PARTIAL
from tessera.saes import CONFIG, WEIGHTS

MODEL, DATASET, SAES = "owner/mine", "owner/reviews", "owner/saes"
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def fetched_config() -> dict[str, Any]:
    config = own_config()
    config["datasets"]["reviews"]["source"] = {"hub": DATASET, "revision": REVISION}
    config["models"]["mine"]["source"] = {"hub": MODEL, "revision": REVISION}
    for sae in config["saes"].values():
        sae["source"] = {"release": SAES, "id": sae["source"]["folder"].removeprefix("data/"), "revision": REVISION}
    config["capture"] = {"shard_tokens": 512}
    parts = {"kind": "language", "dataset": "reviews", "model": "mine", "selections": ["none"], "folds": 2}
    parts |= {"text": ["tfidf-word"], "sae_poolings": ["sum"], "hidden_poolings": ["mean"]}
    return config | {"transfers": {"parts": parts}}


def serve(folder: Path, tiny_model: Path) -> Hub:
    """The Hub that has the study's inputs."""
    write_reviews(folder / "reviews.csv")
    table = io.BytesIO()
    pq.write_table(pyarrow.csv.read_csv(folder / "reviews.csv"), table)
    saes = {}
    for name, kind, layer in (("sae-l1", "jumprelu", 1), ("sae-l3", "topk", 3)):
        random_sae(folder / name, kind, layer=layer)
        saes |= {f"{name}/{file}": (folder / name / file).read_bytes() for file in (CONFIG, WEIGHTS)}
    hub = Hub({})
    hub.own = {
        MODEL: {path.name: path.read_bytes() for path in tiny_model.iterdir()},
        DATASET: {"train.parquet": table.getvalue()},
        SAES: saes,
    }
    hub.gated = dict.fromkeys(hub.own, SECRET)
    return hub


def online(hub: Hub, cache: Path, token: str = SECRET) -> dict[str, str]:
    """The environment of a run that may ask the Hub."""
    return {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HOME": str(cache),
        "HF_TOKEN": token,
        "NO_PROXY": "127.0.0.1,localhost",
    }


@dataclass(frozen=True)
class Stage:
    """A script of the workflow, a target that asks for all that it makes, and the patterns of that below results/."""

    script: str
    target: str
    made: tuple[str, ...]

    def made_below(self, results: Path) -> set[Path]:
        made = {path for pattern in self.made for path in results.glob(pattern) if path.is_file()}
        assert made, self.made
        return made

    def forget(self, results: Path) -> set[Path]:
        """Remove what the stage makes; returns it."""
        made = self.made_below(results)
        for path in made:
            path.unlink()
        return made


TABLES = "cells", "arms", "differences", "curves", "comparisons", "ranks", "noise", "classes", "saes"
TRANSFER_TABLES = "transfers", "dictionaries", "matches"


def of_tables(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"tables/{name}.*" for name in names)


STAGES = {
    stage.script: stage
    for stage in (
        Stage("dataset", "datasets", ("datasets/*",)),
        Stage("model", "results/models/mine/revision.json", ("models/mine/*",)),
        Stage("sae", "results/saes/mine-l3/revision.json", ("saes/mine-l3/*",)),
        Stage("capture", "captures", ("activations/**/*",)),
        Stage("leakage", "checks", ("checks/*",)),
        Stage("probe_text", "probes", ("probes/text/**/*",)),
        Stage("probe", "probes", ("probes/mine/**/*",)),
        Stage("transfer", "results/transfer/parts/cells.parquet", ("transfer/**/*",)),
        Stage("transfer_tables", "results/tables/transfers.parquet", of_tables(TRANSFER_TABLES)),
        Stage("explore", "explorer", ("explorer/**/*",)),
        Stage("tables", "results/tables/cells.parquet", of_tables(TABLES)),
        Stage("figure", "figures", ("figures/*",)),
        Stage("findings", "results/findings.json", ("findings.json",)),
        Stage("report", "results/report.html", ("report.html",)),
    )
}
# The stages that ask the Hub.
FETCHING = "dataset", "model", "sae"


def made_by(folder: Path) -> dict[str, bytes]:
    """What a run has made, by its path: every file below results/ whose content does not tell of hours and seconds."""
    results = folder / "results"
    timed = {"report.html", "snakemake-report.html", "run.json", ".digests.json", snapshots.NOTES}
    return {
        str(path.relative_to(results)): b"" if path.name in timed else path.read_bytes()
        for path in files(results)
        if "benchmarks" not in path.parts
    }


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def half_written(folder: Path) -> list[Path]:
    return [path for path in files(folder) if path.name.endswith(PARTIAL)]


def finish(folder: Path, hub: Hub) -> World:
    """The study after one whole run, in `folder`/world; what is printed lies beside its results."""
    world = World(folder / "world")
    world.folder.mkdir()
    shutil.rmtree(folder / "cache", ignore_errors=True)
    printed = world.run(config=fetched_config(), environment=online(hub, folder / "cache"))
    (world.folder / "printed.txt").write_text(printed)
    return world
