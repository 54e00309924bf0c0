"""A headless browser, a report to open in it, and a watch on what a page asks for and complains of."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fakes_explorer
import fakes_tables
import pytest
from fakes_report import written
from playwright.sync_api import Browser, Page, sync_playwright

from tessera import report

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = (1280, 900), (390, 844)

EVIL = [
    "<script>document.title='taken'</script>",
    "</script><script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "{{ 7 * 7 }}",
    "\u202eback to front",
    "\x00\x1b[31m",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    "javascript:alert(1)",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; a test that wants one is skipped where there is none."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"])
        yield started
        started.close()


@dataclass(frozen=True)
class Report:
    """A report on disk, with two tasks to explore inside it and one, of images, beside it."""

    page: Path
    apart: Path

    def address(self, place: str = "") -> str:
        return self.page.as_uri() + place


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run of the stand-in world; the words of its second task are whatever people may have put into their data."""
    folder = tmp_path_factory.mktemp("finished")
    tables = fakes_tables.with_failed(fakes_tables.world(), EVIL[0], arm="tfidf", dataset="docstrings")
    given = written(folder, tables, drawn=("arms", "saes"))
    tasks = {
        "docstrings": fakes_explorer.record("docstrings", labels=("numpy", "scipy", "pandas"), subsets=(), features=30),
        "requests": fakes_explorer.record(labels=(EVIL[0], EVIL[2]), subsets=(EVIL[1], EVIL[4]), words=EVIL),
        "digits": fakes_explorer.record("digits", labels=tuple("012"), subsets=(), image=True),
    }
    for name, record in tasks.items():
        path = folder / f"explorer/demo-large/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record), encoding="utf-8")
    features = [folder / f"explorer/demo-large/{name}.json" for name in tasks]
    found = Report(folder / "report.html", folder / "report/demo-large/digits.html")
    benchmark = folder / "benchmarks/tables.tsv"
    benchmark.parent.mkdir()
    benchmark.write_text("s\tmax_rss\tcpu_time\n5.0\t300\t4.0\n", encoding="utf-8")
    report.build(found.page, **given, features=features, apart={features[2]: found.apart}, benchmarks=benchmark.parent)
    return found


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, finished: Report) -> Iterator[Open]:
    """Opens an address and returns its page; at the end nothing may have been asked for, nor gone wrong."""
    contexts, troubles = [], []

    def open_page(
        place: str = "",
        size: tuple[int, int] = WIDE,
        *,
        scripts: bool = True,
        theme: str = "light",
        complains: bool = False,
    ) -> Page:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=scripts, color_scheme=theme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complains or troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
        known = (finished.address(), finished.apart.as_uri(), "data:")
        page.on(
            "request",
            lambda asked: complains or asked.url.startswith(known) or troubles.append(f"request: {asked.url}"),
        )
        page.goto(finished.address(place))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
