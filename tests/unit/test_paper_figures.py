"""Figures of the study: all there, nothing over anything else in any world, and what cannot be drawn is said."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import fakes_paper
import fakes_tables
import fakes_transfers
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from test_figures import drawn_texts, shown_axes, words

from tessera.figure_names import IMAGES, POOLINGS, SINGLE, PaperFigure, paper_figures, patterns
from tessera.figures import paper as registry
from tessera.figures import paper_parts, style
from tessera.paper_results import Paper
from tessera.results import Tables

REASON = "lbfgs did not converge in 10000 iterations (C = 10)"
ODD = "A very long name with $x_1^2$ <b>and</b> \\frac and " + "W" * 60
LAYERS = (1, 3, 5)


def twelve_models() -> Paper:
    models = {f"model-{number:02d}": list(LAYERS) for number in range(12)}
    saes = {f"{model}-l{layer}": (model, layer, 512) for model in models for layer in LAYERS}
    return fakes_paper.of_tables(fakes_tables.world(models=models, saes=saes))


def six_widths() -> Paper:
    saes = {f"l{layer}-{2**place}": ("demo-large", layer, 2**place) for layer in LAYERS for place in range(9, 15)}
    return fakes_paper.of_tables(fakes_tables.world(saes=saes))


def oddly_named() -> Paper:
    names = {
        name: f"{name} {ODD} Ελληνικά 日本語"
        for name in (*fakes_tables.DATASETS, *fakes_tables.MODELS, "quiz-large", "demo-vision")
    }
    titles = dict.fromkeys(("datasets", "models", "behaviours"), names)
    return fakes_paper.demo(titles=titles | {"transfers": fakes_transfers.TITLES["transfers"]})


def failing() -> Paper:
    tables = fakes_tables.with_failed(fakes_tables.world(), REASON, head="demo-large-l3-512", pooling="sum")
    tables = fakes_tables.with_failed(tables, "a class has fewer than 3 members", dataset="requests", layer=5)
    moved = fakes_transfers.with_failed(
        fakes_transfers.world(), "the solver failed", lambda cells: (cells["layer"] == 3) | (cells["arm"] == "vision")
    )
    return with_transfers(tables, moved.transfers)


def with_transfers(tables: Tables, transfers: pd.DataFrame) -> Paper:
    more: dict[str, Any] = {"transfers": transfers, "image_transfers": {"digits": "digits"}, "pictures": ["digits"]}
    return fakes_paper.of_tables(tables, **more)


def all_failed() -> Paper:
    tables = fakes_tables.world()
    for arm in ("sae", "hidden", "tfidf", "majority"):
        tables = fakes_tables.with_failed(tables, REASON, arm=arm)
    moved = fakes_transfers.with_failed(fakes_transfers.world(), REASON, lambda cells: cells["arm"] != "")
    return with_transfers(tables, moved.transfers)


def without_hidden() -> Paper:
    tables = fakes_tables.world()
    return fakes_paper.of_tables(replace(tables, cells=tables.cells[tables.cells["arm"] != "hidden"]))


WORLDS: dict[str, Callable[[], Paper]] = {
    "default": fakes_paper.demo,
    "strict alone": partial(fakes_paper.demo, protocols=("strict",)),
    "one layer": lambda: fakes_paper.of_tables(
        fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [3]}, {"a": ("demo-large", 3, 512)})
    ),
    "no SAE": lambda: fakes_paper.of_tables(fakes_tables.world(saes={})),
    "no model": lambda: fakes_paper.of_tables(fakes_tables.world(models={}, saes={})),
    "no hidden states": without_hidden,
    "failures": failing,
    "all failed": all_failed,
    "twelve models": twelve_models,
    "six widths": six_widths,
    "odd names": oddly_named,
    "the study": fakes_paper.study,
}
# What is drawn of each world: all single figures, and of the sets these.
DRAWN = [PaperFigure(name) for name in SINGLE] + [
    PaperFigure(POOLINGS, "docstrings", 512),
    PaperFigure(IMAGES, "digits"),
]
OF_THE_STUDY = [PaperFigure(name) for name in SINGLE if name != "paper-top-n"] + [
    PaperFigure(POOLINGS, "massive-scenario", 16384),
    PaperFigure(IMAGES, "cifar100"),
]
OF_MANY = [PaperFigure("paper-scale"), PaperFigure(POOLINGS, "docstrings", 512)]
SETS = {"the study": OF_THE_STUDY, "twelve models": OF_MANY, "six widths": OF_MANY}
CASES = [(world, figure) for world in WORLDS for figure in SETS.get(world, DRAWN)]
NAMED = [f"{world}: {figure.name}" for world, figure in CASES]


@cache
def made(world: str) -> Paper:
    return WORLDS[world]()


@cache
def laid_out(world: str, figure: PaperFigure) -> Figure:
    """A figure as it will be written; warnings of the layout are errors."""
    with warnings.catch_warnings(action="error"), style.applied():
        drawn = registry.draw(figure, made(world))
        drawn.draw_without_rendering()
        drawn.draw_without_rendering()
    return drawn


@pytest.mark.parametrize(("world", "figure"), CASES, ids=NAMED)
def test_everything_fits_and_keeps_clear_of_everything_else_in_any_world(world: str, figure: PaperFigure) -> None:
    drawn = laid_out(world, figure)
    width, height = drawn.bbox.size
    for text in drawn_texts(drawn):
        box = text.get_window_extent()
        inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
        assert inside, f"{text.get_text()!r} lies outside"
    panels = [axes.get_window_extent() for axes in shown_axes(drawn)]
    titles = [axes._left_title.get_window_extent() for axes in shown_axes(drawn) if axes.get_title(loc="left")]
    legends = [legend.get_window_extent() for legend in drawn.legends]
    assert all(min(panel.width, panel.height) > 50 for panel in panels), "a panel shrank to nothing"
    for first, second in combinations([*panels, *titles, *legends], 2):
        assert not first.overlaps(second)


OF_SCORES = [case for case in CASES if case[1].name not in ("paper-binarisation", "paper-top-n")]


@pytest.mark.parametrize(("world", "figure"), OF_SCORES, ids=str)
def test_score_axes_start_at_zero(world: str, figure: PaperFigure) -> None:
    for axes in shown_axes(laid_out(world, figure)):
        limits = axes.get_xlim() if figure.name == "paper-baselines" else axes.get_ylim()
        assert limits[0] == 0


# Differences need no groups of layers, and the best of each kind needs no SAE.
GROUPED = [figure for figure in DRAWN if figure.name not in ("paper-binarisation", "paper-top-n", "paper-baselines")]
OF_SAES = [figure for figure in DRAWN if figure.name != "paper-baselines"]


@pytest.mark.parametrize(
    ("world", "figure"),
    [("one layer", figure) for figure in GROUPED]
    + [(world, figure) for world in ("no SAE", "no model") for figure in OF_SAES],
    ids=str,
)
def test_what_cannot_be_drawn_is_said(world: str, figure: PaperFigure) -> None:
    assert re.search(r"No (SAE|layer|pooling)", words(laid_out(world, figure)))


@pytest.mark.parametrize("figure", DRAWN, ids=lambda figure: figure.name)
def test_a_run_that_failed_throughout_names_the_reason(figure: PaperFigure) -> None:
    text = words(laid_out("all failed", figure)).replace("\n", " ").replace("   ", " ")
    assert REASON in text


def test_one_layer_is_no_middle() -> None:
    text = words(laid_out("one layer", PaperFigure("paper-scale"))).replace("\n", " ")
    assert paper_parts.NO_GROUP in text


def test_without_hidden_states_the_averaged_version_is_said_to_be_missing() -> None:
    text = words(laid_out("no hidden states", PaperFigure(POOLINGS, "docstrings", 512))).replace("\n", " ")
    assert "there is nothing to average with" in text


def test_failures_are_named_with_their_number() -> None:
    text = words(laid_out("failures", PaperFigure("paper-scale"))).replace("\n", " ").replace("   ", " ")
    assert f"(Demo, large, layer 3): {REASON}" in text
    assert "2 of 48 configurations" in text or "4 of 48 configurations" in text
    images = words(laid_out("failures", PaperFigure(IMAGES, "digits"))).replace("\n", " ")
    assert "No line for the vision tower: it failed: the solver failed" in images


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in ("paper-behaviours",)])
def test_each_figure_says_its_protocol(name: str) -> None:
    assert "Paper protocol, one split" in words(laid_out("default", PaperFigure(name)))
    assert "Strict protocol" in words(laid_out("strict alone", PaperFigure(name)))


def test_both_versions_of_the_authors_bars_are_drawn_and_named() -> None:
    drawn = laid_out("the study", PaperFigure(POOLINGS, "massive-scenario", 16384))
    labels = [axes.get_ylabel().split("\n")[0] for axes in drawn.axes if axes.get_ylabel()]
    assert labels == ["SAE alone", "SAE and hidden"] * 2
    assert "as the authors' bars do" in words(drawn).replace("\n", " ").replace("    ", " ")


def test_published_scores_are_diamonds_at_their_place() -> None:
    drawn = laid_out("the study", PaperFigure(POOLINGS, "massive-scenario", 16384))
    bars = registry.data(PaperFigure(POOLINGS, "massive-scenario", 16384), made("the study"))
    found = sorted(line.get_ydata()[0] for axes in drawn.axes for line in axes.lines if line.get_marker() == "D")
    assert found == pytest.approx(sorted(bars["published"].dropna()))
    assert len(found) > 20
    assert paper_parts.PUBLISHED in words(drawn)
    assert paper_parts.PUBLISHED not in words(laid_out("default", PaperFigure(POOLINGS, "docstrings", 512)))


def test_bars_stand_at_their_scores() -> None:
    drawn = laid_out("the study", PaperFigure(POOLINGS, "massive-scenario", 16384))
    bars = registry.data(PaperFigure(POOLINGS, "massive-scenario", 16384), made("the study"))
    found = sorted(patch.get_height() for axes in drawn.axes for patch in axes.patches)
    assert found == pytest.approx(sorted(bars["macro_f1"]))


def test_no_two_models_of_a_run_look_alike() -> None:
    look = paper_parts.looks(made("twelve models"))
    assert len({(look.color(model), look.hatch(model)) for model in look.models}) == 12
    assert len({(look.color(model), look.marker(model)) for model in look.models}) == 12
    of_study = paper_parts.looks(made("the study"))
    assert len({look for width in of_study.widths for look in [of_study.line(width)]}) == len(of_study.widths) == 4


def test_a_model_looks_alike_in_every_figure() -> None:
    """In a figure of one model it has the colour that it has beside the others."""
    colors = {to_hex(patch.get_facecolor()) for axes in laid_out("the study", PaperFigure(POOLINGS, "massive-scenario", 16384)).axes for patch in axes.patches}  # fmt: skip
    wide = registry.draw(PaperFigure(POOLINGS, "massive-scenario", 1048576), made("the study"))
    alone = {to_hex(patch.get_facecolor()) for axes in wide.axes for patch in axes.patches}
    look = paper_parts.looks(made("the study"))
    assert alone == {to_hex(look.color("gemma-2-9b"))} < colors


# --- names and files -----------------------------------------------------------------------------------------------


def test_names_follow_from_datasets_and_widths() -> None:
    found = paper_figures({"a": [16, 32], "b-16": [16], "c": []}, ["b-16"])
    assert list(found) == ["paper-poolings-a-16", "paper-poolings-a-32", "paper-poolings-b-16-16", *SINGLE, "paper-images-b-16"]  # fmt: skip
    assert found["paper-poolings-b-16-16"] == PaperFigure(POOLINGS, "b-16", 16)


def test_every_picture_has_a_name_and_a_caption() -> None:
    assert set(registry.PICTURES) == {POOLINGS, IMAGES, *SINGLE}
    for name in [*registry.PICTURES, "paper"]:
        text = (fakes_paper.ROOT / f"workflow/report/{name}.rst").read_text(encoding="utf-8")
        assert len(text.split()) > 30
        assert not re.search(r"[{}`*_|]|::|\.\. ", text), "markup would show on the page"
        assert text.rstrip().endswith(".")


def test_patterns_replace_ids_by_what_they_are() -> None:
    transfers = {"transfer": {"kind": "language"}, "quiz": {"kind": "model"}}
    found = patterns(["arms"], transfers, paper_figures({"d": [8]}, ["p"]))
    assert found == {
        "arms": "arms",
        "transfer-transfer": "transfer-{language}",
        "transfer-transfer-training": "transfer-{language}-training",
        "transfer-quiz": "transfer-{model}",
        "paper-poolings-d-8": "paper-poolings-{dataset}-{width}",
        **{name: name for name in SINGLE},
        "paper-images-p": "paper-images-{dataset}",
    }


def test_files_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    figures = [PaperFigure(POOLINGS, "docstrings", 512), PaperFigure("paper-top-n")]
    for turn in ("first", "second"):
        registry.write(figures, fakes_paper.demo(), tmp_path / turn)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == sorted(f"{figure.name}.{kind}" for figure in figures for kind in ("csv", "pdf", "png", "svg"))
    for name in written:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
