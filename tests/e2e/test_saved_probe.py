"""The probes that a whole run saves, applied to the texts of their dataset."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from worlds import World

from tessera import saved
from tessera.errors import UserError

SAVED = [
    *(f"mine/reviews/{sae}/{pooling}" for sae in ("mine-l1", "mine-l3") for pooling in ("sum", "last")),
    *(f"mine/reviews/layer-1/{pooling}" for pooling in ("last", "mean")),
    *(f"text/reviews/{arm}" for arm in ("tfidf-word", "majority")),
]


def test_every_input_of_the_config_leaves_a_probe(finished_world: World) -> None:
    folder = finished_world.folder / "results/probes"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")}
    assert found == {f"{name}.probe.safetensors" for name in SAVED}


@pytest.mark.parametrize("name", SAVED)
def test_a_probe_repeats_what_the_run_predicted(finished_world: World, name: str) -> None:
    results = finished_world.folder / "results"
    probe = saved.load(results / f"probes/{name}.probe.safetensors")
    texts = pd.read_parquet(results / "datasets/reviews.parquet").set_index("id").text
    rows = pd.read_parquet(results / f"probes/{name}.predictions.parquet").query("protocol == 'strict' and seed == 0")
    threshold = probe.about["threshold"]
    rows = rows[rows.threshold.isna() if threshold is None else rows.threshold == threshold]
    assert len(rows) == 18
    given = texts[rows.example].tolist()
    assert probe.predict(given) == rows.predicted.tolist()
    np.testing.assert_allclose(probe.probabilities(given), np.stack(rows.scores.tolist()), atol=1e-4)


def test_a_probe_is_the_one_that_the_tables_choose_by_validation(finished_world: World) -> None:
    results = finished_world.folder / "results"
    cells = pd.read_parquet(results / "tables/cells.parquet").query("protocol == 'strict' and seed == 0")
    for name in SAVED[:4]:
        about = saved.load(results / f"probes/{name}.probe.safetensors").about
        same = cells[(cells["head"] == about["head"]) & (cells.pooling == about["pooling"]) & (cells.subset == "all")]
        same = same[(same.regime == "full") & same.k.isna() & (same.classifier == "l2")]
        assert len(same) == 2
        assert about["validation"] == same.validation.max()


def test_another_model_in_the_same_place_is_refused(finished_world: World, tmp_path: Path) -> None:
    results = finished_world.copy(tmp_path / "changed").folder / "results"
    record = results / "models/mine/revision.json"
    record.write_text(record.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(UserError, match="this snapshot is not the one that the probe was trained on"):
        saved.load(results / "probes/mine/reviews/layer-1/mean.probe.safetensors")
