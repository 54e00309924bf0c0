"""A table whose texts, labels and names of subsets are markup, formulas and characters that act, through a whole run."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from worlds import COMMON, TOPICS, World, own_config, own_world

LABELS = ["<script>document.title='taken'</script>", '=HYPERLINK("http://127.0.0.1","x")', "\u202eback\x1b[31m\x07"]
SUBSETS = ['"><img src=x onerror="document.title=\'taken\'">', "</script><script>document.title='taken'</script>"]
WORDS = ["{{ 7 * 7 }}", "<!--", "]]>", "@SUM(1)", "+1+cmd|' /C calc'!A0", "\u2066isolated\u2069", "\x9b2J", "</style>"]
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Tags(HTMLParser):
    """What a browser would run or fetch of a page or a picture."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.fetched: list[str | None] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.fetched += [value for name, value in attributes if name == "src" and not (value or "").startswith("data:")]


def hostile_config() -> dict[str, Any]:
    config = own_config()
    parts = {"kind": "language", "dataset": "reviews", "model": "mine", "selections": ["none"], "folds": 2}
    parts |= {"text": ["tfidf-word"], "sae_poolings": ["sum"], "hidden_poolings": ["mean"]}
    return config | {"transfers": {"parts": parts}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> World:
    """A user's own table, of which every word that can be someone else's is hostile, after a whole run."""
    made = own_world(tmp_path_factory.mktemp("hostile") / "world", tiny_model)
    with (made.folder / "data/reviews.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["review", "topic", "part"])
        for i in range(90):
            words = [TOPICS[list(TOPICS)[i % 3]][i % 8], WORDS[i % len(WORDS)], COMMON[i % 15], LABELS[i % 3], str(i)]
            writer.writerow([" ".join(words[i % 2 :]), LABELS[i % 3], SUBSETS[i % 2]])
    (made.folder / "printed.txt").write_text(made.run(config=hostile_config()), encoding="utf-8")
    return made


def test_the_pages_run_and_fetch_nothing_of_it_and_show_no_character_that_acts(world: World) -> None:
    page = world.folder / "results/report.html"
    content = page.read_text(encoding="utf-8")
    tags = Tags(page)
    assert (tags.tags.count("script"), tags.handlers, tags.fetched) == (1, [], [])
    assert not ACTING.search(content)
    # It is there to be read all the same.
    assert "&lt;script&gt;document.title=" in content
    assert "[U+202E]back" in content
    assert 'id="explore.mine.reviews"' in content


def test_snakemakes_own_report_has_no_script_of_it(world: World) -> None:
    content = (world.folder / "results/snakemake-report.html").read_text(encoding="utf-8")
    assert "<script>document.title" not in content
    assert "<img src=x" not in content


def test_no_figure_has_markup_of_it(world: World) -> None:
    figures = sorted((world.folder / "results/figures").glob("*.svg"))
    assert figures
    for figure in figures:
        tags = Tags(figure)
        assert "svg" in tags.tags
        assert not {"script", "img", "foreignobject"} & set(tags.tags), figure.name
        assert tags.handlers == []


def test_no_table_for_people_computes(world: World) -> None:
    found = 0
    for path in [*world.folder.glob("results/tables/*.csv"), *world.folder.glob("results/figures/*.csv")]:
        with path.open(newline="", encoding="utf-8") as handle:
            for cell in (cell for row in csv.reader(handle) for cell in row):
                found += cell.startswith("'=HYPERLINK")
                number = re.fullmatch(r"[+-]?\d*\.?\d+(e[+-]?\d+)?|-?inf|-?nan", cell, re.IGNORECASE)
                assert not cell.startswith(FORMULAS) or number, (path.name, cell)
    assert found


def test_the_terminal_and_the_logs_get_no_character_that_acts(world: World) -> None:
    logs = [path for path in (world.folder / "logs").rglob("*.log") if path.stat().st_size]
    assert logs
    for path in [world.folder / "printed.txt", *logs]:
        assert not ACTING.search(path.read_text(encoding="utf-8").replace("\r\n", "\n")), path
