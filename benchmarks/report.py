"""How large the report of a run of the study's size is, how long it takes to write, and how long to open in a browser.

The tables are stand-ins of that size: 27 datasets, four models, 30 SAEs, transfers of every kind, and 61 tasks to explore,
five of them of images. Run it as `PYTHONPATH=tests/unit python benchmarks/report.py`; it needs the `test` extra and Chromium.
"""

import json
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import fakes_explorer
import fakes_tables
import fakes_transfers
from fakes_report import written
from playwright.sync_api import sync_playwright

from tessera import report

MODELS = {
    "gemma-2-2b": [5, 12, 19],
    "gemma-2-9b": [9, 20, 31],
    "gemma-2-9b-it": [9, 20, 31],
    "paligemma-2-3b": [5, 12, 19],
}
WIDTHS = {
    "gemma-2-2b": (16, 65),
    "gemma-2-9b": (16, 131, 1024),
    "gemma-2-9b-it": (16, 131, 1025),
    "paligemma-2-3b": (16, 65),
}
LANGUAGES = ["en", "de", "es", "fr", "it", "ru", "zh"]
TEXTS, IMAGES = 22, 5
OPENINGS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        given = written(root, tables(), ("arms", "layers", "poolings", "curves", "saes"), transfers())
        features = explored(root)
        for name, apart in (("all inside", {}), ("features beside", beside(root, features))):
            started = time.perf_counter()
            report.build(root / "report.html", **given, features=features, apart=apart)
            seconds = time.perf_counter() - started
            pages = [root / "report.html", *apart.values()]
            largest = max(pages, key=lambda page: page.stat().st_size)
            print(f"{name}: written in {seconds:.1f} s, {total(pages):.1f} MB in {len(pages)} files")
            for page in dict.fromkeys([pages[0], largest]):
                print(f"  {page.relative_to(root)}: {total([page]):.1f} MB, opens in {opening(page):.2f} s")
    print(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def total(pages: list[Path]) -> float:
    return sum(page.stat().st_size for page in pages) / 1e6


def tables() -> Any:
    datasets = {f"task-{place:02d}": ["all", *(LANGUAGES if place < 6 else [])] for place in range(TEXTS + IMAGES)}
    saes = {
        f"{model}-l{layer}-{width}k": (model, layer, width * 1024)
        for model, widths in WIDTHS.items()
        for layer in MODELS[model]
        for width in widths
    }
    titles = {
        "datasets": {name: f"A dataset with a longish name, {name}" for name in datasets},
        "models": {name: name.replace("-", " ").title() for name in MODELS},
    }
    return fakes_tables.world(datasets, MODELS, saes, titles=titles)


def transfers() -> Any:
    languages = [f"toxicity-{place}" for place in range(4)]
    cells = [fakes_transfers.languages(LANGUAGES, transfer=name) for name in languages]
    images = [f"images-{place}" for place in range(4)]
    cells += [fakes_transfers.digits(transfer=name) for name in images]
    cells += [fakes_transfers.tasks(), fakes_transfers.answers()]
    named = fakes_transfers.TITLES["transfers"]
    kinds = {name: {"kind": "language", "title": f"Toxicity, model {name}", "origin": "en"} for name in languages}
    kinds |= {name: {"kind": "modality", "title": f"Images of {name}"} for name in images}
    kinds |= {name: named[name] for name in ("tasks", "answers", "siblings")}
    return fakes_transfers.world(*cells, titles=fakes_transfers.TITLES | {"transfers": kinds})


def explored(root: Path) -> list[Path]:
    """The explorer's files: 14 datasets of two labels, and others of as many as the study has."""
    labels = {
        place: tuple(f"label {at:03d}" for at in range({4: 77, 5: 60, 6: 18}.get(place, 2))) for place in range(TEXTS)
    }
    found = []
    for model in MODELS:
        images = model.startswith("pali")
        for place in range(TEXTS, TEXTS + IMAGES) if images else range(TEXTS - 3):
            dataset = f"task-{place:02d}"
            many = tuple(f"class {at:03d}" for at in range(100)) if images else labels[place]
            record = fakes_explorer.record(
                dataset, model, labels=many, subsets=tuple(LANGUAGES) if place < 6 else (), image=images, side=96,
                features=100, examples=8, predictions=60, window=48,
            )  # fmt: skip
            path = root / "explorer" / model / f"{dataset}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record), encoding="utf-8")
            found.append(path)
    return found


def beside(root: Path, features: list[Path]) -> dict[Path, Path]:
    return {path: root / "report" / path.parent.name / f"{path.stem}.html" for path in features}


def opening(page: Path) -> float:
    """Seconds from asking for the page to its first picture, the middle one of a few."""
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for _ in range(OPENINGS):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            opened = context.new_page()
            started = time.perf_counter()
            opened.goto(page.as_uri())
            opened.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            found.append(time.perf_counter() - started)
            context.close()
        browser.close()
    return sorted(found)[len(found) // 2]


if __name__ == "__main__":
    main()
