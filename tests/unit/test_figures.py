"""Figures: right numbers, nothing silently missing, nothing drawn over anything else, the same bytes every time."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import fakes_tables
import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from tessera import figures
from tessera.errors import UserError
from tessera.figures import arms, curves, layers, poolings, saes, style
from tessera.results import NUMBERS, Tables

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
REASON = "lbfgs did not converge in 10000 iterations (C = 10)"


def failing() -> Tables:
    tables = fakes_tables.world()
    tables = fakes_tables.with_failed(tables, REASON, dataset="docstrings", model="demo-large", arm="sae")
    tables = fakes_tables.with_failed(tables, "a class has fewer than 3 members", dataset="requests", arm="tfidf")
    return fakes_tables.with_failed(tables, "solver failed", dataset="requests", head="layer-3")


def oddly_named() -> Tables:
    odd = "A very long name with $x_1^2$ <b>and</b> \\frac and " + "W" * 60
    titles = {
        "datasets": {"docstrings": odd, "requests": odd + " too"},
        "models": {"demo-large": odd, "demo-small": odd},
    }
    return fakes_tables.world(titles=titles)


WORLDS: dict[str, Callable[[], Tables]] = {
    "default": fakes_tables.world,
    "one dataset, one layer": lambda: fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [3]}, {}),
    "no SAE": lambda: fakes_tables.world(saes={}),
    "no model": lambda: fakes_tables.world(models={}, saes={}),
    "no paper protocol": lambda: fakes_tables.world(protocols=("strict",)),
    "no strict protocol": lambda: fakes_tables.world(protocols=("paper",)),
    "five models": lambda: fakes_tables.world(models={f"m{i}": [1, 2] for i in range(5)}, saes={}),
    "failures": failing,
    "odd names": oddly_named,
}


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


@cache
def laid_out(world: str, name: str) -> Figure:
    """A figure as it will be written; warnings of the layout are errors."""
    with warnings.catch_warnings(action="error"), style.applied():
        figure = figures.FIGURES[name].draw(WORLDS[world]())
        figure.draw_without_rendering()
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("world", WORLDS)
def test_everything_fits_on_the_canvas_in_any_world(world: str, name: str) -> None:
    figure = laid_out(world, name)
    width, height = figure.bbox.size
    for text in drawn_texts(figure):
        box = text.get_window_extent()
        inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
        assert inside, f"{text.get_text()!r} lies outside"


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("world", WORLDS)
def test_panels_their_titles_and_the_legend_keep_clear_of_one_another(world: str, name: str) -> None:
    figure = laid_out(world, name)
    panels = [axes.get_window_extent() for axes in shown_axes(figure)]
    titles = [axes._left_title.get_window_extent() for axes in shown_axes(figure) if axes.get_title(loc="left")]
    legends = [legend.get_window_extent() for legend in figure.legends]
    assert all(min(panel.width, panel.height) > 60 for panel in panels), "a panel shrank to nothing"
    for first, second in combinations([*panels, *titles, *legends], 2):
        assert not first.overlaps(second)


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


@pytest.mark.parametrize("name", figures.FIGURES)
def test_files_are_the_same_bytes_every_time(tmp_path: Path, name: str) -> None:
    tables = fakes_tables.world({"docstrings": ["all"]}, {"demo-large": [1]}, {"sae-a": ("demo-large", 1, 8)})
    for table in NUMBERS:
        getattr(tables, table).to_parquet(tmp_path / f"{table}.parquet")
    for turn in ("first", "second"):
        figures.write(name, tmp_path, tmp_path / turn / name, tables.titles)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == [f"{name}.csv", f"{name}.pdf", f"{name}.png", f"{name}.svg"]
    for file in written:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
    assert (tmp_path / "first" / f"{name}.csv").read_text().count("\n") == len(figures.FIGURES[name].data(tables)) + 1


def test_a_figure_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use one of: arms, layers"):
        figures.write("violins", tmp_path, tmp_path / "violins", {})


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_has_a_caption_of_plain_sentences(name: str) -> None:
    text = (CAPTIONS / f"{name}.rst").read_text(encoding="utf-8")
    assert len(text.split()) > 30
    assert not re.search(r"[{}`*_|]|::|\.\. ", text), "markup would show in the report page"
    assert text.rstrip().endswith(".")


@pytest.mark.parametrize("name", ["arms", "layers", "poolings"])
def test_titles_are_drawn_as_they_are(name: str) -> None:
    figure = figures.FIGURES[name].draw(oddly_named())
    assert "$x_1^2$" in words(figure).replace("\n", " ")
    named = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert not any(text.get_parse_math() for text in named), "the dollar sign would start a formula"


def test_matplotlibs_own_settings_stay_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    arms.draw(fakes_tables.world())
    assert dict(matplotlib.rcParams) == before


# --- arms ----------------------------------------------------------------------------------------------------------


def markers(figure: Figure, color: str, *, filled: bool) -> list[float]:
    return sorted(
        float(line.get_xdata()[0])
        for axes in figure.axes
        for line in axes.lines
        if to_hex(line.get_color()) == color.lower()
        and line.get_marker() != "x"
        and (to_hex(line.get_markerfacecolor()) != "#ffffff") == filled
    )


@pytest.mark.parametrize(("protocol", "filled"), [("strict", True), ("paper", False)])
def test_sae_markers_stand_at_their_scores_filled_for_strict_alone(protocol: str, filled: bool) -> None:
    tables = fakes_tables.world()
    rows = tables.arm_rows(protocol).query("arm == 'sae'")
    found = markers(arms.draw(tables), style.VERMILLION, filled=filled)
    assert found == pytest.approx(sorted(rows["macro_f1"]))


def test_intervals_are_those_of_the_strict_rows() -> None:
    tables = fakes_tables.world()
    rows = tables.arm_rows("strict").query("arm == 'sae'")
    drawn = [
        tuple(segment[:, 0])
        for axes in arms.draw(tables).axes
        for lines in axes.collections
        if hasattr(lines, "get_segments") and to_hex(lines.get_color()[0]) == style.VERMILLION.lower()
        for segment in lines.get_segments()
    ]
    assert np.array(sorted(drawn)) == pytest.approx(np.array(sorted(zip(rows["low"], rows["high"], strict=True))))


def test_a_failed_arm_says_why_in_the_figure_and_in_full_below_it() -> None:
    text = words(arms.draw(failing()))
    assert "failed: lbfgs did not conv" in text
    assert f"SAE features on Docstrings, Demo, large: {REASON}" in text.replace("\n", " ").replace("   ", " ")


def test_a_model_without_an_sae_is_said_to_have_none() -> None:
    assert "Demo, small (no SAE)" in words(arms.draw(fakes_tables.world()))
    assert "no SAE" not in words(arms.draw(fakes_tables.world(saes={})))


def test_an_arm_that_was_not_run_on_a_dataset_is_said_to_be_missing() -> None:
    tables = fakes_tables.world()
    left = tables.arms[~((tables.arms["arm"] == "sae") & (tables.arms["dataset"] == "requests"))]
    figure = arms.draw(replace(tables, arms=left))
    assert words(figure).count("not run") == 1


def test_a_dataset_that_a_model_does_not_read_is_one_word_beside_it() -> None:
    tables = fakes_tables.world()
    one = tables.arms.loc[tables.arms["model"] != "text", "model"].iloc[0]
    left = tables.arms[~((tables.arms["model"] == one) & (tables.arms["dataset"] == "requests"))]
    text = words(arms.draw(replace(tables, arms=left)))
    assert text.count("not read") == 1
    assert "not run" not in text


def datasets_shown(figure: Figure) -> list[list[str]]:
    return [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]


def test_a_line_of_facets_has_the_datasets_that_its_models_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = fakes_tables.world()
    monkeypatch.setattr(arms, "COLUMNS", 1)
    second = list(tables.models)[1]
    left = tables.arms[~((tables.arms["model"] == second) & (tables.arms["dataset"] == "requests"))]
    figure = arms.draw(replace(tables, arms=left))
    assert "not read" not in words(figure)
    assert datasets_shown(figure) == [["Docstrings", "Requests in five\nlanguages"], ["Docstrings"]]


def test_a_dataset_that_no_model_reads_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = fakes_tables.world()
    monkeypatch.setattr(arms, "COLUMNS", 1)
    left = tables.arms[(tables.arms["model"] == "text") | (tables.arms["dataset"] != "requests")]
    figure = arms.draw(replace(tables, arms=left))
    assert datasets_shown(figure) == [["Docstrings", "Requests in five\nlanguages"], ["Docstrings"]]


def test_a_run_of_the_paper_protocol_alone_is_called_optimistic() -> None:
    assert "chosen on the test part" in words(arms.draw(fakes_tables.world(protocols=("paper",))))


# --- layers --------------------------------------------------------------------------------------------------------


def test_a_model_has_no_panel_of_a_dataset_that_it_does_not_read() -> None:
    tables = fakes_tables.world()
    one = tables.cells.loc[tables.cells["model"] != "text", "model"].iloc[0]
    left = tables.cells[~((tables.cells["model"] == one) & (tables.cells["dataset"] == "requests"))]
    shown = [
        len([axes for axes in layers.draw(given).axes if axes.get_visible()])
        for given in (tables, replace(tables, cells=left))
    ]
    assert shown[1] == shown[0] - 1


def test_a_point_is_the_test_score_of_the_configuration_that_validation_chose() -> None:
    tables = fakes_tables.world()
    point = layers.data(tables).query("dataset == 'requests' and arm == 'sae' and layer == 3 and width == 512")
    cells = tables.cells.query(
        "protocol == 'strict' and subset == 'all' and dataset == 'requests' and head == 'demo-large-l3-512'"
    )
    per_seed = [cells[cells["seed"] == seed].nlargest(1, "validation")["macro_f1"].item() for seed in range(5)]
    assert point[["macro_f1", "lowest", "highest"]].to_numpy().tolist() == [
        pytest.approx([np.mean(per_seed), min(per_seed), max(per_seed)])
    ]


def test_a_lost_point_is_kept_with_its_reason() -> None:
    points = layers.data(failing())
    lost = points[points["status"] == "failed"]
    assert len(lost) == 3 * 2 + 2
    assert lost["macro_f1"].isna().all()
    assert set(lost["reason"]) == {REASON, "solver failed"}
    text = words(layers.draw(failing()))
    assert "layer 1, 3, 5, width 512, 1,024" in text
    assert "No line for TF-IDF on Requests" in text


def test_one_failed_pooling_loses_no_point() -> None:
    points = layers.data(fakes_tables.with_failed(fakes_tables.world(), "no", pooling="sum"))
    assert set(points["status"]) == {"ok"}


# --- poolings ------------------------------------------------------------------------------------------------------


def test_a_mean_is_taken_over_the_same_heads_for_every_variant() -> None:
    tables = fakes_tables.with_failed(fakes_tables.world(), "no", head="demo-large-l3-512", pooling="top-20")
    points = poolings.data(tables).query("arm == 'sae'")
    assert set(points.loc[points["counts"], "head"]) == set(fakes_tables.SAES) - {"demo-large-l3-512"}
    kept = points.query("dataset == 'requests' and pooling == 'sum' and threshold.isna()")
    assert kept.loc[kept["head"] == "demo-large-l3-512", "status"].item() == "ok"
    figure = poolings.draw(tables)
    drawn = [line.get_xdata()[0] for line in figure.axes[2].lines if line.get_markersize() == 6]
    assert drawn[0] == pytest.approx(kept.loc[kept["counts"], "macro_f1"].mean())
    assert "Not in the means of Docstrings: demo-large-l3-512" in words(figure)


def test_a_variant_that_failed_everywhere_does_not_empty_the_means_of_the_others() -> None:
    tables = fakes_tables.with_failed(fakes_tables.world(), "no", pooling="top-20", threshold=1.0)
    points = poolings.data(tables).query("arm == 'sae'")
    assert points.loc[points["status"] == "ok", "counts"].all()
    assert words(poolings.draw(tables)).count("failed: no") == 2


def test_sae_features_and_hidden_states_have_panels_of_their_own() -> None:
    figure = poolings.draw(fakes_tables.world())
    left, right = figure.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == [
        name for pooling in ("sum", "top-20", "last") for name in (pooling, f"{pooling} \N{GREATER-THAN OR EQUAL TO} 1")
    ]
    assert [label.get_text() for label in right.get_yticklabels()] == ["mean", "max", "last"]


# --- saes ----------------------------------------------------------------------------------------------------------


def test_what_nobody_measured_is_written_as_not_recorded() -> None:
    tables = fakes_tables.world()
    bare = tables.saes[tables.saes["dataset"].notna()].assign(explained_variance=np.nan)
    figure = saes.draw(replace(tables, saes=bare))
    assert words(figure).count("not recorded") == len(fakes_tables.SAES)
    assert "own record" not in words(figure)


def test_an_axis_that_does_not_start_at_zero_says_where_it_does() -> None:
    tables = fakes_tables.world()
    poor = tables.saes.assign(explained_variance=tables.saes["explained_variance"] - 1.2)
    text = words(saes.draw(replace(tables, saes=poor)))
    assert f"Explained variance\n(axis starts at {poor['explained_variance'].min():.2g})" in text
    assert "reconstructs worse than the mean activation" in text
    assert "L0 (active features a token)\n(axis starts at 0)" in text


def test_more_datasets_than_markers_share_one() -> None:
    rng = np.random.default_rng(0)
    datasets = {f"d{i}": ["all"] for i in range(12)}
    tables = fakes_tables.world(datasets, {"demo-large": [1]}, {"a": ("demo-large", 1, 8)})
    assert "on each of the 12 datasets" in words(saes.draw(tables))
    assert len(fakes_tables.sae_table({"a": ("demo-large", 1, 8)}, list(datasets), rng)) == 13


def test_the_path_of_l1_stands_at_the_numbers_of_features_it_leaves_in() -> None:
    tables = fakes_tables.world()
    rows = curves.data(tables)
    path = rows[rows["line"] == curves.PATH]
    assert sorted(path["k"].unique()) == [3.2, 20.4, 90.0]
    assert set(path["dataset"]) == set(rows["dataset"])
    figure = curves.draw(tables)
    assert curves.NAMES[curves.PATH] in words(figure)
    alone = replace(tables, curves=tables.curves[tables.curves["classifier"] == "l1"])
    ticks = [label.get_text() for label in curves.draw(alone).axes[0].get_xticklabels()]
    assert ticks == ["1", "4", "16", "64", "256", "all"]


def test_a_penalty_whose_probes_failed_is_told_beside_the_path() -> None:
    tables = fakes_tables.world()
    broken = tables.curves.copy()
    lost = broken["penalty"] == 0.5
    broken.loc[lost, ["n_weighed", "macro_f1", "lowest", "highest"]] = np.nan
    broken.loc[lost, ["status", "reason"]] = ["failed", "not done after 1000 rounds"]
    assert "not done after 1000 rounds" in words(curves.draw(replace(tables, curves=broken)))
