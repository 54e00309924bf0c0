"""Runs beside the study: the published numbers as a run's own, the whole grid of the study's config, and worlds of odd shapes.

In `study()` every cell that is published has the published score, and every other one a score near it: nothing here was
measured.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import fakes_tables
import fakes_transfers
import numpy as np
import pandas as pd
import yaml
from test_scoreboard import KNOWN, OURS, SOURCES

from tessera import config_file, scoreboard
from tessera.paper_results import Paper
from tessera.results import Tables
from tessera.scoreboard import Run, Sources
from tessera.study import Study

ROOT = Path(__file__).parents[2]


def paper(
    cells: pd.DataFrame,
    sources: Sources,
    *,
    transfers: pd.DataFrame | None = None,
    pictures: Iterable[str] = (),
    titles: dict[str, dict[str, Any]] | None = None,
    image_transfers: dict[str, str] | None = None,
) -> Paper:
    """These cells beside the published ones, as the scoreboard of the run lays them."""
    run = Run(cells, transfers, sources, list(pictures))
    board = pd.DataFrame(list(scoreboard.compared(run, KNOWN))).reindex(columns=scoreboard.TABLE.names)
    return Paper(cells, transfers, board, KNOWN, run, titles or {}, image_transfers or {})


@cache
def reproduction() -> Paper:
    """The published numbers as the run's own. A made-up model `any` has the authors' best of each dataset."""
    images = [name for name, source in SOURCES["datasets"].items() if KNOWN.kinds[source["hub"]] == "vision"]
    sizes = KNOWN.cells.groupby(["dataset", "part"])["n_test"].max()
    known = [
        sizes.get((source["hub"], source["splits"][0])) for source in map(SOURCES["datasets"].get, OURS["dataset"])
    ]
    return paper(OURS.assign(n_test=OURS["n_test"].fillna(pd.Series(known, OURS.index))), SOURCES, pictures=images)


def of_tables(tables: Tables, **more: Any) -> Paper:
    """A run on data of its own, which compares with nothing."""
    nothing = {"demo": "x"}
    sources = {"datasets": dict.fromkeys(tables.datasets, nothing), "models": dict.fromkeys(tables.models, nothing)}
    return paper(tables.cells, sources, titles=dict(tables.titles), **more)


@cache
def config() -> Study:
    given = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    return Study(config_file.parse(given))


@cache
def study() -> Paper:
    """Every cell that config/paper.yaml asks for under the paper protocol, and what its transfers of images score."""
    of, rng = config(), np.random.default_rng(0)
    known = KNOWN.cells[KNOWN.cells["known"] & (KNOWN.cells["classifier"] == "l2")]
    keys = ["model", "dataset", "part", "arm", "layer", "width", "pooling", "threshold"]
    published = {_key(row): row.published for row in known[[*keys, "published"]].itertuples(index=False)}
    levels = known.groupby("dataset")["published"].mean().to_dict()
    sizes = known.groupby("dataset")["n_test"].max().to_dict()
    cells = [_cell(of, cell, published, levels, sizes, rng) for dataset in of.probed for cell in _asked(of, dataset)]
    images = {name: entry.images for name, entry in of.config.transfers.items() if entry.kind == "modality"}
    return paper(
        pd.DataFrame(cells).astype({"layer": "float64", "width": "float64", "threshold": "float64", "k": "float64"}),
        of.sources(),
        transfers=_towers(images),
        pictures=[name for name in of.probed if of.config.datasets[name].holds_images],
        titles=of.titles(),
        image_transfers=images,
    )


def _key(row: Any) -> tuple[Any, ...]:
    return tuple(None if pd.isna(value) else value for value in tuple(row)[:8])


def _asked(of: Study, dataset: str) -> Iterable[dict[str, Any]]:
    """The cells of a dataset, without scores."""
    for model, on in of.captures:
        for head in of.probed_heads(model) if on == dataset else ():
            params = of.probe_params(model, head.id)
            same = {"dataset": dataset, "model": model, "head": head.id}
            same |= {name: params[name] for name in ("arm", "layer", "width")}
            for pooling in params["poolings"]:
                yield from ({**same, "pooling": pooling, "threshold": cut} for cut in params["thresholds"])
    for arm in ("tfidf", "majority"):
        if arm == "majority" or not of.config.datasets[dataset].holds_images:
            nothing = dict.fromkeys(("layer", "width", "pooling", "threshold"))
            yield {"dataset": dataset, "model": "text", "head": arm, "arm": arm, **nothing}


def _cell(
    of: Study,
    cell: dict[str, Any],
    published: dict[Any, float],
    levels: dict[str, float],
    sizes: dict[str, float],
    rng: Any,
) -> dict[str, Any]:
    source = of.config.datasets[cell["dataset"]].source
    hub, part = source.hub, source.splits[0]
    model = of.config.models[cell["model"]].source.hub if cell["model"] != "text" else "text"
    key = (model, hub, part, *(cell[name] for name in ("arm", "layer", "width", "pooling", "threshold")))
    near = levels.get(hub, 0.8) * {"tfidf": 0.93, "majority": 0.4, "hidden": 0.98}.get(cell["arm"], 1.0)
    near *= 0.8 if cell["arm"] == "sae" and cell["pooling"] == "last" else 1.0
    score = published.get(key, float(np.clip(near + rng.normal(0, 0.02), 0.02, 1)))
    size = sizes.get(hub, np.nan)
    return cell | {
        "macro_f1": score, "validation": score, "accuracy": score, "classifier": "majority" if cell["arm"] == "majority" else "l2",
        "protocol": "paper", "seed": 42, "subset": "all", "regime": "full", "k": None, "n_classes": 2,
        "n_test": 300 if np.isnan(size) else size, "status": "ok", "reason": "",
    }  # fmt: skip


def _towers(images: dict[str, str]) -> pd.DataFrame:
    """The vision tower on each dataset of images."""
    rows = pd.concat([fakes_transfers.digits(transfer=transfer) for transfer in images])
    rows = rows[(rows["arm"] == "vision") & (rows["source"] == "images")].assign(model="paligemma-2-3b")
    return fakes_transfers.typed(rows, "transfers")


def demo(**changes: Any) -> Paper:
    """A demo run: two datasets, SAEs of one model, transfers of behaviours and of images that are not probed."""
    moved = fakes_transfers.world()
    titles = {**fakes_tables.TITLES, **{key: moved.titles[key] for key in ("behaviours", "transfers")}}
    tables = fakes_tables.world(**{"titles": titles, **changes})
    return of_tables(tables, transfers=moved.transfers, image_transfers={"digits": "digits"}, pictures=["digits"])
