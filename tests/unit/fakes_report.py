"""A finished run on disk, as far as the report reads it, from the stand-in tables."""

import json
from pathlib import Path
from typing import Any

import fakes_tables

from tessera import figures, findings, scoreboard, transfer_results
from tessera.results import NUMBERS, Tables
from tessera.transfer_results import Transfers

ROOT = Path(__file__).parents[2]


def written(
    folder: Path, tables: Tables | None = None, drawn: tuple[str, ...] = ("saes",), transfers: Transfers | None = None
) -> dict[str, Any]:
    """The files of a run in `folder`, as what `report.build` takes, with these figures; the run is the stand-in world."""
    tables = tables or fakes_tables.world()
    folders = {name: folder / name for name in ("tables", "figures", "records")}
    for made in folders.values():
        made.mkdir()
    for name in NUMBERS:
        getattr(tables, name).to_parquet(folders["tables"] / f"{name}.parquet")
    fakes_tables.classes(tables).to_parquet(folders["tables"] / "classes.parquet")
    scoreboard.write(
        cells=folders["tables"] / "cells.parquet",
        transfers=None,
        published=ROOT / "resources/reference",
        sources={"datasets": {}, "models": {}},
        images=[],
        output=folders["tables"],
    )
    titles = tables.titles
    if transfers:
        titles = {**transfers.titles, **titles}
        for name in transfer_results.NUMBERS:
            getattr(transfers, name).to_parquet(folders["tables"] / f"{name}.parquet")
        drawn = (*drawn, *figures.of_transfers(titles))
    for name in drawn:
        figures.write(name, folders["tables"], folders["figures"] / name, titles)
    findings.write(folders["tables"], titles, folder / "findings.json")
    paths: dict[str, list[Path]] = {}
    for kind, records in fakes_tables.records().items():
        for name, record in records.items():
            path = (
                folders["records"] / kind / (f"{name}/revision.json" if kind in ("models", "saes") else f"{name}.json")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record), encoding="utf-8")
            paths.setdefault(kind, []).append(path)
    return {
        "tables": folders["tables"],
        "findings": folder / "findings.json",
        "figures": folders["figures"],
        "captions": ROOT / "workflow/report",
        "citation": ROOT / "CITATION.cff",
        "probes": fakes_tables.PROBES,
        "titles": titles,
        **paths,
    }
