"""Figures of transfer: right numbers, nothing silently missing, nothing drawn over anything else, the same bytes."""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import fakes_transfers
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from tessera import figures, transfer_results
from tessera.errors import UserError
from tessera.figure_names import PICTURES, caption_name, transfer_figures
from tessera.figures import (
    style,
    transfer_dictionary,
    transfer_language,
    transfer_layers,
    transfer_matrix,
    transfer_modality,
    transfer_model,
    transfer_parts,
    transfer_task,
    transfer_training,
)
from tessera.transfer_results import Transfers

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
REASON = "lbfgs did not converge in 10000 iterations (C = 10)"
ODD = "A very long name with $x_1^2$ <b>and</b> \\frac and " + "W" * 40
TWENTY = [
    "ar",
    "bg",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "fi",
    "fr",
    "hi",
    "it",
    "ja",
    "ko",
    "nl",
    "pl",
    "pt-BR",
    "ru",
    "sv",
    "zh",
]


def failing() -> Transfers:
    tables = fakes_transfers.world()
    # Everything from one source, as when nothing could be trained on it: heads have no rows then.
    cells = tables.transfers
    untrained = cells["source"].isin(["it", "spam"])
    tables = replace(tables, transfers=cells[~(untrained & cells["head"].notna())].reset_index(drop=True))
    tables = fakes_transfers.with_failed(
        tables,
        "'harmful' has 2 training examples in one of the folds",
        lambda cells: cells["source"].isin(["it", "spam"]),
    )
    tables = fakes_transfers.with_failed(tables, REASON, lambda cells: (cells["layer"] == 3) & (cells["arm"] == "sae"))
    tables = fakes_transfers.with_failed(tables, "solver failed", lambda cells: cells["arm"].isin(["tfidf", "vision"]))
    dictionary = tables.dictionaries.copy()
    dictionary.loc[1, ["macro_f1", "low", "high", "agreement"]] = np.nan
    dictionary.loc[1, ["status", "reason"]] = ["failed", REASON]
    dictionary.loc[2, "explained_variance"] = np.nan
    dictionary.loc[3, "explained_variance"] = -0.4
    return replace(tables, dictionaries=dictionary)


def all_failed() -> Transfers:
    tables = fakes_transfers.world()
    cells = tables.transfers[tables.transfers["head"].isna()].reset_index(drop=True)
    return fakes_transfers.with_failed(replace(tables, transfers=cells), REASON, lambda rows: rows["arm"] != "")


def oddly_named() -> Transfers:
    odd = dict(
        zip(fakes_transfers.LANGUAGES, ["Ελληνικά", "日本語", "français (Québec)", "$de$", "W" * 30], strict=True)
    )
    titles = {
        "datasets": {name: f"{name} {ODD}" for name in fakes_transfers.TASKS},
        "models": {name: f"{name} {ODD}" for name in fakes_transfers.READERS},
        "behaviours": {name: f"{name} {ODD}" for name in ("quiz-large", "quiz-tuned")},
        "transfers": {name: {**entry, "title": ODD} for name, entry in fakes_transfers.TITLES["transfers"].items()},
    }
    titles["transfers"]["languages"]["origin"] = odd["en"]
    tables = fakes_transfers.world(titles=titles)
    cells = tables.transfers.assign(
        source=tables.transfers["source"].replace(odd), target=tables.transfers["target"].replace(odd)
    )
    return replace(tables, transfers=cells)


def bare() -> Transfers:
    """Hidden states alone."""
    f = fakes_transfers
    cells = [
        f.languages(widths=(), text=False, translated=False, shares=(1.0,)),
        f.tasks(widths=(), text=False),
        f.answers(widths=()),
        f.digits(widths=(), names=False),
    ]
    return f.world(*cells, dictionary=f.dictionaries(layers=(3,)))


def one_cell() -> Transfers:
    f = fakes_transfers
    cells = [
        f.languages(["en"], (3,), shares=(1.0,), selections=("none",), translated=False),
        f.tasks(["hate"]),
        f.answers({"quiz-large": "demo-large"}, ["demo-large"], (512,)),
        f.digits((512,), names=False),
    ]
    return f.world(*cells, dictionary=f.dictionaries(layers=(3,))[:2])


def large() -> Transfers:
    f = fakes_transfers
    names = [f"task-{number:02d}" for number in range(20)]
    readers = [f"reader-{number}" for number in range(6)]
    titles = {
        **f.TITLES,
        "datasets": {name: f"A task with a longish name, {name}" for name in names},
        "models": {name: f"A model with a longish name, {name}" for name in readers},
    }
    cells = [
        f.languages(TWENTY, (5, 12), (16384,), shares=(1.0,), selections=("none",)),
        f.tasks(names),
        f.answers({f"behaviour-{n}": readers[n] for n in range(5)}, readers, (16384, 65536)),
        f.digits(),
    ]
    return f.world(*cells, dictionary=f.dictionaries(names[:6], (5, 12, 19)), titles=titles)


WORLDS: dict[str, Callable[[], Transfers]] = {
    "default": fakes_transfers.world,
    "failures": failing,
    "all failed": all_failed,
    "odd names": oddly_named,
    "hidden states alone": bare,
    "one cell": one_cell,
    "large": large,
    "nothing": fakes_transfers.empty,
}
NAMES = list(transfer_figures(fakes_transfers.TITLES["transfers"]))


@cache
def made(world: str) -> Transfers:
    return WORLDS[world]()


@cache
def laid_out(world: str, name: str) -> Figure:
    """A figure as it will be written; warnings of the layout, and of letters that the font lacks, are errors."""
    tables = made(world)
    with warnings.catch_warnings(action="error"), style.applied():
        figure = figures.of_transfers(tables.titles)[name].draw(tables)
        figure.draw_without_rendering()
        figure.draw_without_rendering()
    return figure


def shown_axes(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.axison]


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text that a reader sees; tick labels beyond the limits of their axis exist and are not drawn."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    found += [part for part in (figure._supxlabel, figure._supylabel) if part is not None]
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        found += axes.texts
        if axes.axison:
            found += [axes._left_title, axes.xaxis.label, axes.yaxis.label]
            ticks = [tick for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
            found += [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in drawn_texts(figure)).split())


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", WORLDS)
def test_everything_fits_on_the_canvas_in_any_world(world: str, name: str) -> None:
    figure = laid_out(world, name)
    width, height = figure.bbox.size
    for text in drawn_texts(figure):
        box = text.get_window_extent()
        inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
        assert inside, f"{text.get_text()!r} lies outside"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", WORLDS)
def test_panels_their_titles_and_the_legend_keep_clear_of_one_another(world: str, name: str) -> None:
    figure = laid_out(world, name)
    panels = [axes.get_window_extent() for axes in shown_axes(figure)]
    titles = [axes._left_title.get_window_extent() for axes in shown_axes(figure) if axes.get_title(loc="left")]
    legends = [legend.get_window_extent() for legend in figure.legends]
    sizes = [
        min(box.width, box.height)
        for box, axes in zip(panels, shown_axes(figure), strict=True)
        if axes.get_label() != "scale"
    ]
    assert all(size > 40 for size in sizes), "a panel shrank to nothing"
    for first, second in combinations([*panels, *titles, *legends], 2):
        assert not first.overlaps(second)


@pytest.mark.parametrize("name", ["transfer-languages", "transfer-tasks"])
@pytest.mark.parametrize("world", ["default", "failures", "odd names", "one cell", "large"])
def test_scores_keep_inside_their_cells(world: str, name: str) -> None:
    figure = laid_out(world, name)
    for axes in shown_axes(figure):
        for text in axes.texts:
            box, (x, y) = text.get_window_extent(), text.get_position()
            corners = [(int(x), int(y)), (int(x) + 1, int(y) + 1)]
            (left, top), (right, bottom) = axes.transData.transform(corners)
            assert left <= box.x0 + 1, text
            assert box.x1 <= right + 1, text
            assert bottom <= box.y0 + 1, text
            assert box.y1 <= top + 1, text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", ["failures", "all failed"])
def test_what_failed_is_drawn_and_its_reason_is_told(world: str, name: str) -> None:
    figure = laid_out(world, name)
    table = figures.of_transfers(made(world).titles)[name].data(made(world))
    lost = table[table["status"] != "ok"]
    if "n_lost" in table:
        assert table["n_lost"].sum() > 0
    elif len(lost):
        marks = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "x"]
        assert marks
        for reason in lost["reason"].unique():
            assert reason in words(figure)


@pytest.mark.parametrize("name", NAMES)
def test_a_transfer_without_rows_says_so(name: str) -> None:
    figure = laid_out("nothing", name)
    assert "N" in words(figure)
    assert not shown_axes(figure)


@pytest.mark.parametrize("name", NAMES)
def test_files_are_the_same_bytes_every_time(tmp_path: Path, name: str) -> None:
    tables = one_cell()
    for table in transfer_results.NUMBERS:
        getattr(tables, table).to_parquet(tmp_path / f"{table}.parquet")
    for turn in ("first", "second"):
        figures.write(name, tmp_path, tmp_path / turn / name, tables.titles)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == [f"{name}.csv", f"{name}.pdf", f"{name}.png", f"{name}.svg"]
    for file in written:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_the_tables_of_a_run_are_refused_without_their_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such table"):
        transfer_results.load(tmp_path, {})
    fakes_transfers.world().transfers.drop(columns="closed").to_parquet(tmp_path / "transfers.parquet")
    with pytest.raises(UserError, match="the columns closed are missing"):
        transfer_results.load(tmp_path, {})


def test_a_transfer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="transfer-languages-training, transfer-tasks"):
        figures.write("transfer-nobody", tmp_path, tmp_path / "x", fakes_transfers.TITLES)


@pytest.mark.parametrize("name", ["transfer-languages", "transfer-answers"])
def test_titles_are_drawn_as_they_are(name: str) -> None:
    named = [text for text in laid_out("odd names", name).findobj(Text) if "$" in text.get_text()]
    assert named
    assert not any(text.get_parse_math() for text in named), "the dollar sign would start a formula"


def test_letters_that_the_font_lacks_are_squares_and_said_to_be() -> None:
    text = words(laid_out("odd names", "transfer-languages"))
    assert "日" not in text
    assert "a letter that the figure's font lacks" in text
    assert "Ελληνικά" in text


def test_names_that_begin_alike_stay_apart_when_they_are_cut() -> None:
    names = [f"A task with a longish name, number {n}" for n in range(12)]
    short = transfer_parts.short_names(names, 90, 7.5)
    assert len(set(short)) == len(names)
    assert all(name.endswith(f" {n}") for n, name in enumerate(short))
    assert transfer_parts.short_names(["one", "two"], 90, 7.5) == ["one", "two"]


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_transfer_of_languages_has_two_figures_and_others_one() -> None:
    assert NAMES == [
        "transfer-languages",
        "transfer-languages-training",
        "transfer-tasks",
        "transfer-answers",
        "transfer-digits",
        "transfer-siblings",
    ]
    assert list(figures.of_transfers(fakes_transfers.TITLES)) == NAMES
    assert list(figures.entries(fakes_transfers.TITLES)) == [*figures.FIGURES, *NAMES]
    assert figures.of_transfers({}) == {}


def test_two_transfers_whose_figures_would_have_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"transfers\.a-training: the figure transfer-a-training"):
        transfer_figures({"a": {"kind": "language"}, "a-training": {"kind": "task"}})


def test_every_picture_has_a_caption_of_plain_sentences() -> None:
    pictures = {picture for of_kind in PICTURES.values() for picture in of_kind}
    assert pictures == set(figures.PICTURES)
    transfers = fakes_transfers.TITLES["transfers"]
    assert {caption_name(name, transfers) for name in NAMES} == {f"transfer-{picture}" for picture in pictures}
    assert caption_name("arms", transfers) == "arms"
    for picture in pictures:
        text = (CAPTIONS / f"transfer-{picture}.rst").read_text(encoding="utf-8")
        assert len(text.split()) > 30
        assert not re.search(r"[{}`*_|]|::|\.\. ", text), "markup would show in the report page"
        assert text.rstrip().endswith(".")


def test_asking_for_names_loads_nothing_heavy() -> None:
    code = "import sys; import tessera.figure_names; print({'pandas', 'matplotlib', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# --- matrices ------------------------------------------------------------------------------------------------------


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if " ".join(axes.get_title(loc="left").split()) == title)


def scores(axes: Axes) -> dict[tuple[int, int], str]:
    """(column, line) -> the score in that cell: the uppermost text."""
    found: dict[tuple[int, int], tuple[float, str]] = {}
    for text in axes.texts:
        x, y = text.get_position()
        place = int(x), int(y)
        if place not in found or y < found[place][0]:
            found[place] = y, text.get_text()
    return {place: text for place, (_, text) in found.items()}


@pytest.mark.parametrize(
    ("title", "head"),
    [
        ("SAE features, layer 3, width 512", "demo-large-l3-512"),
        ("Hidden states, layer 5", "layer-5"),
        ("TF-IDF", None),
    ],
)
def test_a_cell_of_the_language_matrix_is_the_score_of_its_pair_in_its_head(title: str, head: str | None) -> None:
    tables = made("default")
    cells = tables.cells("languages").query("selection == 'none' and share == 1 and training != 'translated'")
    cells = cells[cells["head"] == head] if head else cells[cells["arm"] == "tfidf"]
    drawn = scores(panel(laid_out("default", "transfer-languages"), title))
    place = {name: at for at, name in enumerate(fakes_transfers.LANGUAGES)}
    expected = {
        (place[row.target], place[row.source]): transfer_matrix.short(row.macro_f1) for row in cells.itertuples()
    }
    assert len(expected) == 25
    assert drawn == expected


def frames(axes: Axes) -> set[tuple[int, int]]:
    return {
        (int(patch.get_x()), int(patch.get_y()))
        for patch in axes.patches
        if isinstance(patch, Rectangle) and not patch.get_fill()
    }


def test_frames_stand_on_the_diagonal_alone() -> None:
    assert frames(panel(laid_out("default", "transfer-languages"), "TF-IDF")) == {(n, n) for n in range(5)}
    assert frames(panel(laid_out("default", "transfer-tasks"), "TF-IDF")) == {(n, n) for n in range(4)}


def test_a_source_that_could_not_be_trained_on_has_failed_in_every_panel() -> None:
    rows = transfer_language.data(made("failures"), "languages")
    lost = rows[(rows["source"] == "it") & (rows["arm"] != "tfidf")]
    assert set(lost["status"]) == {"failed"}
    assert len(lost) == 6 * 5
    assert set(lost["layer"]) == {1, 3, 5}
    assert not rows.duplicated(["arm", "head", "source", "target"]).any()


def test_two_saes_of_one_layer_and_width_have_panels_of_their_own() -> None:
    cells = fakes_transfers.languages(["en", "de"], (3,), shares=(1.0,), selections=("none",), translated=False)
    twin = cells[cells["head"] == "demo-large-l3-512"].assign(head="another-sae")
    figure = transfer_language.draw(fakes_transfers.world(cells, twin), "languages")
    titles = [" ".join(axes.get_title(loc="left").split()) for axes in figure.axes]
    assert "SAE features, layer 3, width 512 another-sae" in titles
    assert "SAE features, layer 3, width 512 demo-large-l3-512" in titles


def test_the_last_line_of_the_task_matrix_is_all_others_and_tells_how_much_of_the_gap_is_closed() -> None:
    tables = made("default")
    axes = panel(laid_out("default", "transfer-tasks"), "SAE features")
    row = tables.cells("tasks").query(
        "training == 'leave-one-out' and target == 'spam' and arm == 'sae' and head.isna()"
    )
    drawn = [
        text.get_text() for text in axes.texts if (int(text.get_position()[0]), int(text.get_position()[1])) == (2, 4)
    ]
    score, low, high = row[["macro_f1", "low", "high"]].to_numpy()[0]
    short = transfer_matrix.short
    assert drawn == [short(score), f"{100 * row['closed'].item():.0f} %", f"{short(low)}\N{EN DASH}{short(high)}"]
    assert axes.get_yticklabels()[4].get_text() == "all others"
    assert transfer_task.OTHERS not in [label.get_text() for label in axes.get_xticklabels()]


def test_what_the_cells_have_no_room_for_is_said_to_be_in_the_table() -> None:
    assert "the share of the gap that is closed and the 95 % interval see the" in words(
        laid_out("large", "transfer-tasks")
    )
    assert "Under a score: the 95 % interval." in words(laid_out("default", "transfer-languages"))


@pytest.mark.parametrize(("score", "text"), [(0.874, ".87"), (0.999, "1.0"), (1.0, "1.0"), (0.0, ".00"), (0.05, ".05")])
def test_a_score_is_written_in_three_letters(score: float, text: str) -> None:
    assert transfer_matrix.short(score) == text


# --- ways of training ----------------------------------------------------------------------------------------------


def test_a_bar_is_the_mean_over_targets_of_the_mean_over_sources() -> None:
    tables = made("default")
    cells = tables.cells("languages").query("arm == 'sae' and head.isna() and selection == 'l1' and share == 0.25")
    bars = transfer_training.data(tables, "languages").query("arm == 'sae' and selection == 'l1' and share == 0.25")
    bars = bars.set_index("way")
    targets = ["de", "es", "fr", "it"]
    for way, rows in {
        "native": cells.query("training == 'native'"),
        "transferred": cells.query("training == 'transferred'"),
        "origin": cells.query("training == 'transferred' and source == 'en'"),
        "translated": cells.query("training == 'translated'"),
    }.items():
        each = [rows.loc[rows["target"] == target, "macro_f1"].mean() for target in targets]
        expected = [np.mean(each), min(each), max(each), 4]
        assert bars.loc[way, ["macro_f1", "lowest", "highest", "n_targets"]].tolist() == pytest.approx(expected), way


def test_a_mean_without_what_failed_is_a_white_bar() -> None:
    tables = fakes_transfers.with_failed(
        made("default"), "no", lambda cells: (cells["target"] == "fr") & (cells["training"] == "translated")
    )
    bars = transfer_training.data(tables, "languages")
    lost = bars[bars["n_lost"] > 0]
    assert set(lost["way"]) == {"translated"}
    assert set(lost["n_targets"]) == {3}
    figure = transfer_training.draw(tables, "languages")
    white = [p for axes in figure.axes for p in axes.patches if p.get_fill() and p.get_facecolor()[:3] == (1, 1, 1)]
    assert len(white) == len(lost)
    assert "white: without what failed" in words(figure)


def test_the_origin_alone_is_not_drawn_twice() -> None:
    cells = fakes_transfers.languages()
    cells = cells[(cells["training"] != "transferred") | (cells["source"] == "en")]
    assert set(transfer_training.data(fakes_transfers.world(cells), "languages")["way"]) == {
        "native",
        "origin",
        "translated",
    }


# --- layers --------------------------------------------------------------------------------------------------------


def points(axes: Axes, marker: str) -> list[float]:
    return sorted(float(y) for line in axes.lines if line.get_marker() == marker for y in line.get_ydata())


def test_markers_stand_at_the_scores_of_their_heads_and_stars_at_those_of_the_arms() -> None:
    cells = made("default").cells("answers").query("target == 'quiz-large'")
    axes = transfer_model.draw(made("default"), "answers").axes[0]
    sae = cells[cells["arm"] == "sae"]
    assert points(axes, "o") == pytest.approx(sorted(sae.loc[sae["width"] == 512, "macro_f1"]))
    assert points(axes, "*") == pytest.approx(sorted(sae.loc[sae["head"].isna(), "macro_f1"]))
    assert points(axes, "s") == pytest.approx(sorted(cells.loc[cells["arm"] == "hidden", "macro_f1"]))


def test_confidence_tfidf_and_floor_are_horizontal_lines() -> None:
    cells = made("default").cells("answers").query("target == 'quiz-large'").set_index("arm")
    axes = transfer_model.draw(made("default"), "answers").axes[0]
    level = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    expected = [cells.loc["tfidf", "macro_f1"], cells.loc["confidence", "macro_f1"], fakes_transfers.FLOOR]
    assert sorted(level) == pytest.approx(sorted(expected))


def test_the_model_that_answers_is_marked() -> None:
    text = words(laid_out("default", "transfer-answers"))
    assert "answers: Demo, large" in text
    assert "answers: Demo, tuned" in text
    assert "Demo, large (answers): SAE" in words(laid_out("one cell", "transfer-answers"))
    others = fakes_transfers.answers({"quiz-large": "demo-large"}, ["demo-small"])
    assert "answers: Demo, large" in words(transfer_model.draw(fakes_transfers.world(others), "answers"))


def test_intervals_are_those_of_the_rows() -> None:
    rows = transfer_modality.data(made("default"), "digits").query("training == 'zero-shot'")
    axes = transfer_modality.draw(made("default"), "digits").axes[1]
    drawn = [tuple(segment[:, 1]) for lines in axes.collections for segment in lines.get_segments()]
    expected = sorted(zip(rows["low"], rows["high"], strict=True))
    assert np.array(sorted(drawn)) == pytest.approx(np.array(expected))


def test_the_vision_tower_and_pixels_stand_beside_images_alone() -> None:
    rows = transfer_layers.points(made("default").cells("digits"))
    assert rows["arm"].tolist().count("vision") == 1
    assert set(rows.loc[rows["arm"].isin(["vision", "pixels"]), "training"]) == {"in-domain"}


# --- dictionaries --------------------------------------------------------------------------------------------------


def test_own_readings_are_filled_and_siblings_open() -> None:
    tables = made("default")
    rows = transfer_dictionary.data(tables, "siblings")
    axes = transfer_dictionary.draw(tables, "siblings").axes[0]
    filled = sorted(line.get_xdata()[0] for line in axes.lines if line.get_markerfacecolor() != "white")
    hollow = sorted(line.get_xdata()[0] for line in axes.lines if line.get_markerfacecolor() == "white")
    assert filled == pytest.approx(sorted(rows.loc[rows["home"] == rows["reader"], "l0"]))
    assert hollow == pytest.approx(sorted(rows.loc[rows["home"] != rows["reader"], "l0"]))


def test_an_explained_variance_below_zero_is_drawn_and_said() -> None:
    figure = laid_out("failures", "transfer-siblings")
    axes = figure.axes[1]
    assert axes.get_xlim()[0] < -0.4
    assert f"(starts at {axes.get_xlim()[0]:.2g})" in axes.get_xlabel()
    assert "reconstructs worse than the mean activation" in words(figure)
    assert "\N{EN DASH} was not measured" in words(figure)
