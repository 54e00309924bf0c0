"""The report: one HTML page that says what was asked, what came out, and how far it can be trusted.

The page is a single file without scripts and without a network: the figures are inside it as images, and a content
security policy holds it to that. Labels, subset names and reasons come from other people's data; the template escapes
every value, and figures are images, in which nothing can run. The same results give the same bytes, as long as the
installed versions are the same.
"""

import base64
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from tessera import __version__, transfer_results
from tessera.figure_names import caption_name
from tessera.figures import FIGURES, Entry, of_transfers
from tessera.files import read_json, replacing
from tessera.report import scoreboard as board_sections
from tessera.report import sections
from tessera.report import transfers as transfer_sections
from tessera.results import ARMS, Tables, load
from tessera.transfer_results import Titles, Transfers

HERE = Path(__file__).parent
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
    behaviours: Iterable[Path | str] = (),
    probes: dict[str, Any],
    titles: Titles,
) -> None:
    """Write the page from the folders of tables, figures and captions, the findings, and the records.

    `datasets` are the records results/datasets/{dataset}.json, `checks` and `behaviours` those of results/checks/ and
    results/behaviours/; `models` and `saes` the records
    results/.../{name}/revision.json; `probes` is that section of the config. A figure without an SVG is left out.
    """
    found = load(tables, titles)
    records = {
        "datasets": {Path(path).stem: read_json(path) for path in datasets},
        "checks": {Path(path).stem: read_json(path) for path in checks},
        "behaviours": {Path(path).stem: read_json(path) for path in behaviours},
        "models": {Path(path).parent.name: read_json(path) for path in models},
        "saes": {Path(path).parent.name: read_json(path) for path in saes},
    }
    page = render(
        found,
        findings=read_json(findings),
        figures=_figures(FIGURES, Path(figures), Path(captions), titles),
        transfer_figures=_figures(of_transfers(titles), Path(figures), Path(captions), titles),
        transfers=transfer_results.load(tables, titles) if titles.get("transfers") else None,
        board=board_sections.load(tables),
        records=records,
        probes=probes,
    )
    with replacing(output) as partial:
        partial.write_text(page, encoding="utf-8")


def render(
    tables: Tables,
    *,
    findings: list[dict[str, Any]],
    figures: list[dict[str, str]],
    records: dict[str, dict[str, dict[str, Any]]],
    probes: dict[str, Any],
    transfer_figures: Sequence[dict[str, str]] = (),
    transfers: Transfers | None = None,
    board: board_sections.Board | None = None,
) -> str:
    """The page itself, from what `build` has read."""
    protocol = tables.protocol
    regimes, conditions = sections.conditions(tables)
    classifiers, other_classifiers = sections.other_classifiers(tables, protocol)
    pairs, differences = sections.differences(tables, protocol)
    other = next(
        (name for name in ("paper", "strict") if name != protocol and (tables.arms["protocol"] == name).any()), ""
    )
    return page(
        "page",
        findings=findings,
        figures=figures,
        arms=[ARMS[arm] for arm in sections.arms_of(tables)],
        protocol=protocol,
        scores=sections.scores(tables, protocol),
        by_subset=sections.scores_by_subset(tables, protocol),
        other_protocol=other,
        other_scores=sections.scores(tables, other) if other else [],
        comparisons=sections.comparisons(tables, protocol),
        classifiers=classifiers,
        other_classifiers=other_classifiers,
        regimes=regimes,
        conditions=conditions,
        checks=sections.checks(records["checks"], tables),
        pairs=pairs,
        differences=differences,
        failed=sections.failed(tables) + (transfer_sections.failed(transfers) if transfers else []),
        transfers=transfer_sections.overview(transfers) if transfers else [],
        transfer_figures=transfer_figures,
        every_cell=transfer_sections.every_cell(transfers) if transfers else [],
        dictionaries=transfer_sections.dictionaries(transfers) if transfers else [],
        matches=transfer_sections.matches(transfers) if transfers else [],
        behaviours=transfer_sections.behaviours(records["behaviours"], transfers) if transfers else [],
        published=board_sections.section(board) if board else None,
        datasets=sections.datasets(records["datasets"], tables),
        models=sections.models(records["models"], tables),
        saes=sections.saes(records["saes"], tables),
        demo=sections.uses_demo(record for kind in records.values() for record in kind.values()),
        probes=probes,
        versions=versions(),
        version=__version__,
    )


def page(template: str, **values: Any) -> str:
    """A page from its template, which escapes every value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{template}.html.j2").render(**values)


def _figures(entries: Mapping[str, Entry], folder: Path, captions: Path, titles: Titles) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "title": entry.title,
            "alt": entry.alt,
            "caption": caption(captions / f"{caption_name(name, titles.get('transfers', {}))}.rst"),
            "image": embedded((folder / f"{name}.svg").read_bytes(), "svg+xml"),
        }
        for name, entry in entries.items()
        if (folder / f"{name}.svg").is_file()
    ]


def embedded(image: bytes, kind: str) -> str:
    """An image as the address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def caption(path: Path) -> str:
    """A caption of the workflow's own report, which is plain sentences so that both reports can show it."""
    return " ".join(path.read_text(encoding="utf-8").split())


def versions() -> list[tuple[str, str]]:
    """What was installed where the page was written; a package that this environment lacks is left out."""
    present = {distribution.metadata["Name"].lower(): distribution.version for distribution in metadata.distributions()}
    return [
        ("tessera", __version__),
        ("Python", platform.python_version()),
        *((package, present[package]) for package in PACKAGES if package in present),
    ]
