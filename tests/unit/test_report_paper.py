"""The page of the study's figures: each of them there with what stands for it, one file, and other people's words escaped."""

import csv
import io
from pathlib import Path
from typing import Any

import fakes_paper
import fakes_transfers
import pytest
from PIL import Image
from test_report import EVIL, Reader
from test_report_scoreboard import board_of
from test_scoreboard import OURS, SOURCES

from tessera.errors import UserError
from tessera.figure_names import PaperFigure, paper_figures, transfer_figures
from tessera.report import paper

CAPTIONS = fakes_paper.ROOT / "workflow/report"
INDEX = fakes_paper.ROOT / "resources/reference/figures_index.csv"
FACTS = fakes_paper.ROOT / "resources/reference/protocol_facts.csv"
PLAIN = ["arms", "layers", "poolings", "curves", "saes"]
TITLES: dict[str, dict[str, Any]] = fakes_transfers.TITLES | {
    "datasets": {"docstrings": "Docstrings", "requests": EVIL},
    "models": {"demo-large": "Demo, large"},
}
FEW = paper_figures({"docstrings": [512], "requests": [512]}, ["digits"])
MANY = paper_figures({"docstrings": list(range(1, paper.FEW + 1)), "requests": [512]}, [])


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "tables"
    board_of(folder, OURS, SOURCES)
    return folder


def page_of(folder: Path, tables: Path, figures: dict[str, PaperFigure], **changes: Any) -> str:
    """A page whose pictures are a square each."""
    drawn = folder / "figures"
    drawn.mkdir(exist_ok=True)
    for name in [*PLAIN, *transfer_figures(TITLES["transfers"]), *figures]:
        (drawn / f"{name}.svg").write_text("<svg/>")
        Image.new("RGB", (60, 40), "white").save(drawn / f"{name}.png")
    given: dict[str, Any] = {
        "tables": tables, "figures": drawn, "index": INDEX, "facts": FACTS, "captions": CAPTIONS, "plain": PLAIN,
        "paper": list(figures.values()), "titles": TITLES, "protocols": ["paper", "strict"],
        "sources": {"datasets": {"docstrings": {"demo": "docstrings"}}, "models": {}},
    }  # fmt: skip
    paper.build(folder / "paper.html", **(given | changes))
    return (folder / "paper.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> str:
    return page_of(tmp_path_factory.mktemp("few"), tables, FEW)


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def index() -> list[dict[str, str]]:
    with INDEX.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_figure_of_the_study_is_on_the_page_in_words(read: Reader) -> None:
    assert len(read.all("section")) == len(index()) + 2
    for row in index():
        for column in ("path_pattern", "axes_groups", "differs"):
            assert " ".join(row[column].split()) in read.text


def test_the_procedure_is_told_fact_by_fact_with_what_is_done_here(read: Reader) -> None:
    with FACTS.open(encoding="utf-8", newline="") as handle:
        facts = list(csv.DictReader(handle))
    for fact in facts:
        for column in ("item", "value", "here", "source"):
            assert fact[column], fact
            assert " ".join(fact[column].split()) in read.text


def test_every_figure_of_ours_stands_once_and_has_its_files(read: Reader) -> None:
    shown = [attributes["id"] for attributes in read.all("h3") if (attributes.get("id") or "").startswith("figure-")]
    assert len(shown) == len(set(shown))
    expected = {*FEW, "layers", "transfer-languages", "transfer-languages-training", "transfer-answers"}
    assert {str(name).removeprefix("figure-") for name in shown} == expected
    links = {attributes["href"] for attributes in read.all("a")}
    assert {f"figures/{name}.{kind}" for name in expected for kind in ("svg", "pdf", "png")} <= links


def test_every_pattern_of_the_index_is_one_of_a_figure() -> None:
    named = {pattern for row in index() for pattern in row["ours"].split()}
    assert {name for name in named if name.startswith("paper-")} == {figure.pattern for figure in FEW.values()}
    assert named - {figure.pattern for figure in FEW.values()} == {
        "layers", "transfer-{model}", "transfer-{language}", "transfer-{language}-training",
    }  # fmt: skip


def test_a_figure_that_stands_for_two_is_linked_from_the_second(read: Reader, page: str) -> None:
    assert page.count('id="figure-paper-behaviours"') == 1
    assert 'href="#figure-paper-behaviours"' in page


def test_few_figures_are_drawings_and_many_are_folded_away_as_pictures(tmp_path: Path, tables: Path, page: str) -> None:
    assert page.count("data:image/svg+xml;base64,") == page.count("<img ")
    many = page_of(tmp_path, tables, MANY)
    assert many.count("data:image/webp;base64,") == paper.FEW + 1
    assert f"Show the {paper.FEW + 1} figures" in many


def test_a_picture_in_few_colours_is_the_same_picture(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20), "white")
    picture.paste((213, 94, 0), (5, 5, 15, 15))
    picture.save(tmp_path / "figure.png")
    packed = paper._few_colors(tmp_path / "figure.png")
    with Image.open(io.BytesIO(packed)) as found:
        assert found.convert("RGB").tobytes() == picture.tobytes()


def test_the_page_fetches_and_runs_nothing(read: Reader) -> None:
    assert len(read.all("script")) == 1
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith(("#", "figures/", "data:,"))
    policy = next(meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_titles_of_a_config_are_escaped(read: Reader) -> None:
    assert EVIL in read.text
    assert all(image["alt"] for image in read.all("img"))


def test_verdicts_and_the_scoreboard_are_on_the_page(read: Reader) -> None:
    assert "What a reproduction should show" in read.text
    assert "This run, strict protocol" in read.text
    assert "Published cells, and what of this run compares with them" in read.text


def test_the_page_says_which_protocol_its_figures_show(tmp_path: Path, tables: Path, read: Reader) -> None:
    assert "show its scores" in read.text
    assert "Real measurements of a toy" in read.text
    strict = Reader(page_of(tmp_path, tables, FEW, protocols=["strict"], sources={"datasets": {}, "models": {}})).text
    assert "all figures show strict scores" in strict
    assert "toy" not in strict


def test_what_a_run_has_nothing_for_is_said(tmp_path: Path, tables: Path) -> None:
    text = Reader(page_of(tmp_path, tables, paper_figures({}, []))).text
    assert text.count("Nothing in this run stands for it") == 2


def test_the_page_has_the_same_bytes_every_time(tmp_path: Path, tables: Path, page: str) -> None:
    assert page_of(tmp_path, tables, FEW) == page


def test_a_broken_index_is_named(tmp_path: Path, tables: Path) -> None:
    (tmp_path / "index.csv").write_text("path_pattern,what\nx,y\n")
    with pytest.raises(UserError, match="the columns axes_groups, code, ours, differs are missing"):
        page_of(tmp_path, tables, FEW, index=tmp_path / "index.csv")
