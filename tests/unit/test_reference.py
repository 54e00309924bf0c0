"""The published numbers: in our words, each score once, with a noise that says how sure it is."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tessera import reference
from tessera.errors import UserError

FOLDER = Path(__file__).parents[2] / "resources" / "reference"


@pytest.fixture(scope="module")
def known() -> reference.Reference:
    return reference.load(FOLDER)


def test_every_published_score_is_in_one_cell(known: reference.Reference) -> None:
    scores = pd.read_csv(FOLDER / "results_tidy.csv")
    assert known.cells["n_published"].sum() == len(scores)
    assert not known.cells.duplicated(reference.CELL).any()
    assert np.isclose((known.cells["published"] * known.cells["n_published"]).sum(), scores["value"].sum())


def test_a_hidden_state_has_no_width_and_its_repeats_are_one_cell(known: reference.Reference) -> None:
    scores = pd.read_csv(FOLDER / "results_tidy.csv")
    here = (scores["dataset"] == "SetFit/tweet_eval_stance_abortion") & (scores["model"] == "google/gemma-2-2b")
    repeats = scores[here & (scores["layer"] == 5) & (scores["feature_type"] == "hidden_states")]["value"]
    cells = known.cells
    (cell,) = cells[
        (cells["dataset"] == "SetFit/tweet_eval_stance_abortion")
        & (cells["model"] == "google/gemma-2-2b")
        & (cells["layer"] == 5)
        & (cells["arm"] == "hidden")
    ].itertuples()
    assert cell.n_published == len(repeats) > 1
    assert cell.published == pytest.approx(repeats.mean())
    assert (cell.published_low, cell.published_high) == (repeats.min(), repeats.max())
    assert np.isnan(cell.width)
    assert cell.pooling == "last"


def test_widths_poolings_and_thresholds_are_called_what_a_config_calls_them(known: reference.Reference) -> None:
    sae = known.cells[(known.cells["arm"] == "sae") & known.cells["known"]]
    assert set(sae["width"]) == {16384, 65536}
    assert set(sae["pooling"]) == {"sum", "top-20", "top-50"}
    assert set(sae["threshold"].dropna()) == {1.0}


def test_the_early_version_does_not_say_how_it_pooled(known: reference.Reference) -> None:
    early = known.cells["experiment"] == "early_pipeline_nov2024"
    assert (known.cells["known"] == ~early).all()


def test_noise_is_at_least_the_sampling_error_and_never_nothing(known: reference.Reference) -> None:
    cells = known.cells
    errors = [reference.sampling_error(row.published, row.n_test) for row in cells.itertuples()]
    assert (cells["noise"] >= np.array(errors)).all()
    assert (cells["noise"] > 0).all()
    perfect = cells[(cells["published"] == 1) & cells["known"]]
    assert len(perfect)
    assert (perfect["noise"] > 0).all()


def test_noise_is_the_spread_of_repeats_where_that_is_larger() -> None:
    scores = pd.DataFrame(
        {"experiment": "e", "model": "m", "dataset": "d", "part": "p", "arm": "hidden", "layer": [1.0, 1.0, 2.0, 2.0],
         "width": np.nan, "pooling": "last", "threshold": np.nan, "classifier": "l2", "value": [0.5, 0.7, 0.6, 0.6],
         "source_file": "f", "source_commit": "c"}
    )  # fmt: skip
    cells = reference._with_noise(reference._cells(scores), scores, {("d", "any"): 10_000.0})
    # One cell varies by 0.02 with one degree of freedom, the other not at all.
    assert cells["noise"].tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("layer", "group"), [(5, "early"), (9, "early"), (12, "middle"), (19, "late"), (20, "middle"), (31, "late")]
)
def test_layers_are_grouped_as_published(layer: int, group: str) -> None:
    assert reference.layer_group(layer) == group


def test_every_published_dataset_has_a_kind(known: reference.Reference) -> None:
    assert {*known.cells["dataset"], *known.best["dataset"]} <= set(known.kinds)


def test_the_best_of_each_dataset_agrees_with_its_own_difference(known: reference.Reference) -> None:
    table = pd.read_csv(FOLDER / "best_per_dataset.csv").set_index("dataset")
    wide = known.best.pivot(index="dataset", columns="arm", values="published")
    assert np.allclose((wide["sae"] - wide["hidden"]).loc[table.index], table["delta_sae_minus_hidden"], atol=1e-5)


def test_the_authors_best_of_each_dataset_is_the_best_of_its_rows(known: reference.Reference) -> None:
    scores = pd.read_csv(FOLDER / "results_tidy.csv")
    scores = scores[scores["experiment"] != "early_pipeline_nov2024"]
    highest = scores.groupby(["dataset", "feature_type"])["value"].max()
    for row in known.best.itertuples():
        arm = {"hidden": "hidden_states", "sae": "sae_features"}[row.arm]
        assert highest[row.dataset, arm] == pytest.approx(row.published, abs=6e-6), row


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (",16k,", ",17k,", "'17k' in width is none of"),
        (",macro_f1,", ",accuracy,", "'accuracy' in metric is not macro_f1"),
        (",5,16k,0,0,hidden", ",five,16k,0,0,hidden", "'five' in layer is no number"),
        ("experiment,model", "kind,model", "the columns experiment are missing"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, old: str, new: str, wrong: str) -> None:
    shutil.copytree(FOLDER, tmp_path / "reference")
    path = tmp_path / "reference" / "results_tidy.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=wrong) as raised:
        reference.load(tmp_path / "reference")
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results_tidy\.csv: there is no such file"):
        reference.load(tmp_path)
