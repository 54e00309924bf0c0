"""What a run cost: time and memory of its jobs by stage, and the tokens that its models read.

Snakemake notes seconds and memory of every job under results/benchmarks/, and the manifest of a capture counts its
tokens. Jobs of one stage run beside each other, so their seconds add up to more than a run takes by the clock; and what an
earlier run left in place is counted with what it cost then.
"""

import csv
import json
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Which stage the jobs of a rule belong to, in the order of the work. What is not named here stands by itself at the end.
STAGES = {
    "Making the demo world": (
        "demo_texts", "demo_digits", "demo_tokenizer", "demo_model", "demo_relatives", "demo_tuned", "demo_vision",
        "demo_sae",
    ),
    "Datasets and their checks": ("dataset", "check"),
    "Bringing in models and SAEs": ("model", "sae"),
    "Models reading (captures)": ("capture",),
    "Models answering (behaviours)": ("behaviour",),
    "Probes": ("probe", "probe_text"),
    "Transfers": ("transfer", "transfer_tables"),
    "Features for the explorer": ("explore",),
    "Tables, scoreboard and findings": ("tables", "scoreboard", "findings"),
    "Figures": ("figure", "paper_figures"),
}  # fmt: skip
# A page's own job is not over when the page is written.
LEFT_OUT = {"report", "paper_page"}


def stages(folder: Path | str) -> list[Row]:
    """A row for each stage that left benchmarks in `folder`, and one for all of them."""
    jobs: dict[str, list[Row]] = {}
    for path in sorted(Path(folder).rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        if rule not in LEFT_OUT:
            stage = next((stage for stage, rules in STAGES.items() if rule in rules), rule)
            jobs.setdefault(stage, []).append(_read(path))
    rows = [_row(stage, jobs[stage]) for stage in [*STAGES, *sorted(set(jobs) - set(STAGES))] if stage in jobs]
    everything = [job for of_stage in jobs.values() for job in of_stage]
    return [*rows, _row("All jobs", everything)] if rows else []


def _read(path: Path) -> Row:
    """Seconds, seconds of a core, and megabytes at most; None for what was over too soon to be measured."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    last = rows[-1] if rows else {}
    return {name: _number(last.get(column)) for name, column in COLUMNS.items()}


COLUMNS = {"seconds": "s", "core": "cpu_time", "memory": "max_rss"}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:  # Snakemake writes a dash or NA where it measured nothing.
        return None
    return value if isfinite(value) else None


def _row(stage: str, jobs: list[Row]) -> Row:
    measured = {name: [job[name] for job in jobs if job[name] is not None] for name in COLUMNS}
    return {
        "stage": stage,
        "jobs": f"{len(jobs):,}",
        "seconds": duration(sum(measured["seconds"])) if measured["seconds"] else "",
        "longest": duration(max(measured["seconds"])) if measured["seconds"] else "",
        "core": duration(sum(measured["core"])) if measured["core"] else "",
        "memory": f"{max(measured['memory']):,.0f} MB" if measured["memory"] else "",
    }


def duration(seconds: float) -> str:
    """Two units at most: what a person would say."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(round(minutes + seconds / 60), 60)
    return f"{hours:,} h {minutes} min"


def reading(manifests: Iterable[Path | str], benchmarks: Path | str, titles: dict[str, str]) -> list[Row]:
    """For each model its passes, what they read, and how fast, from results/activations/{model}/{dataset}/{capture}/."""
    found: dict[str, list[tuple[int, int, float | None]]] = {}
    for path in sorted(map(Path, manifests)):
        record = json.loads(path.read_text(encoding="utf-8"))
        model, dataset, capture = path.parts[-4:-1]
        tokens = record["tokens"]["read"]
        noted = Path(benchmarks) / "capture" / model / dataset / f"{capture}.tsv"
        found.setdefault(model, []).append(
            (record["examples"], tokens, _read(noted)["seconds"] if noted.is_file() else None)
        )
    return [_of_model(titles.get(model, model), passes) for model, passes in found.items()]


def _of_model(title: str, passes: list[tuple[int, int, float | None]]) -> Row:
    timed = [(tokens, seconds) for _, tokens, seconds in passes if seconds]
    rate = sum(tokens for tokens, _ in timed) / sum(seconds for _, seconds in timed) if timed else None
    return {
        "model": title,
        "passes": f"{len(passes):,}",
        "examples": f"{sum(examples for examples, _, _ in passes):,}",
        "tokens": f"{sum(tokens for _, tokens, _ in passes):,}",
        "rate": "" if rate is None else f"{rate:,.0f}",
    }
