"""The report: an HTML page that says what was asked, what came out, and how far it can be trusted.

It is a single file that opens from disk and asks for nothing: figures, their numbers, style and script are inside it, and
a content security policy holds it to that. A small script shows one page at a time; without it everything stands in a
row. Only the features of many tasks would make it slow to open; a run that has so many gets a page for each beside it,
made in the same way. Labels, subset names and reasons come from other people's data; the templates escape every value,
mark what does not print, and figures are images, in which nothing can run. The same results give the same bytes, as long
as the installed versions are the same.
"""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from tessera import __version__, health, results, transfer_results
from tessera.figures import FIGURES, of_transfers
from tessera.files import read_json, replacing
from tessera.report import citation as citations
from tessera.report import dataset_pages, explorer, front, sae_pages, sections, shell, spending
from tessera.report import scoreboard as board_sections
from tessera.report import transfers as transfer_sections
from tessera.report.drawn import caption, drawn
from tessera.results import ARMS, Tables, load
from tessera.transfer_results import Titles, Transfers

__all__ = ["build", "caption", "drawn", "render", "versions"]

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sae-lens",
    "safetensors",
    "datasets",
    "pyarrow",
    "pandas",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "snakemake",
)


def build(
    output: Path | str,
    *,
    tables: Path | str,
    findings: Path | str,
    figures: Path | str,
    captions: Path | str,
    datasets: Iterable[Path | str],
    models: Iterable[Path | str],
    saes: Iterable[Path | str],
    checks: Iterable[Path | str],
    citation: Path | str,
    behaviours: Iterable[Path | str] = (),
    manifests: Iterable[Path | str] = (),
    benchmarks: Path | str | None = None,
    features: Iterable[Path | str] = (),
    apart: Mapping[Path, Path] | None = None,
    sae_models: Mapping[str, str] | None = None,
    probes: dict[str, Any],
    titles: Titles,
) -> None:
    """Write the page from the folders of tables, figures and captions, the findings, and the records.

    `datasets` are the records results/datasets/{dataset}.json, `checks` and `behaviours` those of results/checks/ and
    results/behaviours/; `models` and `saes` the records results/.../{name}/revision.json; `manifests` are those of the
    captures, and `benchmarks` is the folder in which Snakemake notes what jobs cost; `citation` is CITATION.cff; `probes`
    is that section of the config. `features` are the explorer's files; those in `apart` get the page of their own that it
    names. `sae_models` says which model each SAE reads; with it, those that serve transfers alone have their health, too. A figure
    without an SVG is left out.
    """
    found, output, apart = load(tables, titles), Path(output), dict(apart or {})
    saes, manifests = ([Path(path) for path in paths] for paths in (saes, manifests))
    if sae_models:
        found = replace(found, saes=health.table(sae_models, saes, manifests).to_pandas())
    records = {
        "datasets": {Path(path).stem: read_json(path) for path in datasets},
        "checks": {Path(path).stem: read_json(path) for path in checks},
        "behaviours": {Path(path).stem: read_json(path) for path in behaviours},
        "models": {Path(path).parent.name: read_json(path) for path in models},
        "saes": {path.parent.name: read_json(path) for path in saes},
    }
    tasks = [_task(Path(path), apart.get(Path(path)), output, titles) for path in features]
    page = render(
        found,
        findings=read_json(findings),
        figures=drawn(FIGURES, Path(figures), Path(captions), titles),
        transfer_figures=drawn(of_transfers(titles), Path(figures), Path(captions), titles),
        transfers=transfer_results.load(tables, titles) if titles.get("transfers") else None,
        board=board_sections.load(tables),
        classes=results.read_table(Path(tables) / "classes.parquet", *dataset_pages.CLASSES),
        records=records,
        probes=probes,
        citation=citations.read(citation),
        tasks=tasks,
        stages=spending.stages(benchmarks) if benchmarks else (),
        reading=spending.reading(manifests, benchmarks, titles["models"]) if benchmarks else (),
    )
    with replacing(output) as partial:
        partial.write_text(page, encoding="utf-8")


def _task(path: Path, apart: Path | None, output: Path, titles: Titles) -> dict[str, Any]:
    """A task of the explorer for the report; one that lies apart is written there, and its overview is what remains."""
    task = explorer.task(read_json(path), titles)
    if apart is None:
        return task | {"apart": False, "href": f"#{task['id']}"}
    with replacing(apart) as partial:
        template = shell.environment().get_template("part.html.j2")
        partial.write_text(template.render(task=task, home=_from(apart, output)), encoding="utf-8")
    kept = {key: value for key, value in task.items() if key not in explorer.LARGE}
    return kept | {"apart": True, "href": _from(output, apart)}


def _from(page: Path, other: Path) -> str:
    """The way from one page to another beside it."""
    return Path(os.path.relpath(other, page.parent)).as_posix()


def render(
    tables: Tables,
    *,
    findings: list[dict[str, Any]],
    figures: list[dict[str, str]],
    records: dict[str, dict[str, dict[str, Any]]],
    probes: dict[str, Any],
    citation: dict[str, Any],
    transfer_figures: Sequence[dict[str, str]] = (),
    transfers: Transfers | None = None,
    board: board_sections.Board | None = None,
    classes: pd.DataFrame | None = None,
    tasks: Sequence[dict[str, Any]] = (),
    stages: Sequence[dict[str, Any]] = (),
    reading: Sequence[dict[str, Any]] = (),
) -> str:
    """The page itself, from what `build` has read."""
    protocol = tables.protocol
    regimes, conditions = sections.conditions(tables)
    classifiers, other_classifiers = sections.other_classifiers(tables, protocol)
    pairs, differences = sections.differences(tables, protocol)
    other = next(
        (name for name in ("paper", "strict") if name != protocol and (tables.arms["protocol"] == name).any()), ""
    )
    claims = board_sections.claims(board) if board else []
    template = shell.environment().get_template("page.html.j2")
    return template.render(
        protocol=protocol,
        # The first page.
        headline=front.headline(tables, protocol),
        findings=findings,
        claims_told=front.claims_told(claims),
        stages=stages,
        reading=reading,
        versions=versions(),
        citation=citation,
        demo=sections.uses_demo(record for kind in records.values() for record in kind.values()),
        # Scores and figures.
        figures=figures,
        arms=[ARMS[arm] for arm in sections.arms_of(tables)],
        scores=sections.scores(tables, protocol),
        by_subset=sections.scores_by_subset(tables, protocol),
        other_protocol=other,
        other_scores=sections.scores(tables, other) if other else [],
        comparisons=sections.comparisons(tables, protocol),
        classifiers=classifiers,
        other_classifiers=other_classifiers,
        regimes=regimes,
        conditions=conditions,
        pairs=pairs,
        differences=differences,
        # What was read.
        datasets=dataset_pages.pages(records["datasets"], records["checks"], tables, classes, protocol),
        metrics=list(dataset_pages.METRICS.values()),
        models=sections.models(records["models"], tables),
        saes=sae_pages.pages(records["saes"], tables),
        tasks=tasks,
        # Transfers, and the published scores.
        transfers=transfer_sections.pages(transfers, records["behaviours"], transfer_figures) if transfers else [],
        overview=transfer_sections.overview(transfers) if transfers else [],
        board=board_sections.overview(board) if board else [],
        outside=board_sections.outside(board) if board else [],
        n_outside=board_sections.n_outside(board) if board else 0,
        claims=claims,
        # What to be wary of, and how it was done.
        checks=sections.checks(records["checks"], tables),
        failed=sections.failed(tables) + (transfer_sections.failed(transfers) if transfers else []),
        probes=probes,
    )


def versions() -> list[tuple[str, str]]:
    """What was installed where the page was written; a package that this environment lacks is left out."""
    present = {distribution.metadata["Name"].lower(): distribution.version for distribution in metadata.distributions()}
    return [
        ("tessera", __version__),
        ("Python", platform.python_version()),
        *((package, present[package]) for package in PACKAGES if package in present),
    ]
