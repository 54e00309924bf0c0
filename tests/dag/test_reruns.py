"""After a finished run, a change plans exactly the jobs that depend on it."""

import copy
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from worlds import ROOT, World, own_config, write_reviews

ALWAYS = Counter(tables=1, scoreboard=1, figure=5, findings=1, report=1)
# Whatever may change which probe is the best, or what stands beside it, lays it out anew.
EXPLORED = ALWAYS + Counter(explore=1)


@pytest.fixture
def config() -> dict[str, Any]:
    return copy.deepcopy(own_config())


def test_nothing_changed_plans_nothing(finished_world: World, config: dict[str, Any]) -> None:
    assert finished_world.planned(config) == Counter()


def test_an_added_layer_is_one_capture_and_its_probes(finished_world: World, config: dict[str, Any]) -> None:
    config["models"]["mine"]["layers"] = [1, 2]
    assert finished_world.planned(config) == EXPLORED + Counter(capture=1, probe=1)


def test_an_added_sae_is_one_capture_and_its_probes(finished_world: World, config: dict[str, Any]) -> None:
    config["saes"]["mine-l2"] = {"source": {"folder": "data/sae-l2"}, "model": "mine", "layer": 2, "width": 96}
    assert finished_world.planned(config) == EXPLORED + Counter(sae=1, capture=1, probe=1)


def test_a_layer_and_an_sae_added_together_share_one_capture(finished_world: World, config: dict[str, Any]) -> None:
    config["models"]["mine"]["layers"] = [1, 2]
    config["saes"]["mine-l2"] = {"source": {"folder": "data/sae-l2"}, "model": "mine", "layer": 2, "width": 96}
    assert finished_world.planned(config) == EXPLORED + Counter(sae=1, capture=1, probe=2)


def test_an_added_dataset_is_captured_and_probed_alone(finished_world: World, config: dict[str, Any]) -> None:
    write_reviews(finished_world.folder / "data/more.csv", seed=5)
    config["datasets"]["more"] = {"source": {"file": "data/more.csv"}, "text": "review", "label": "topic"}
    assert finished_world.planned(config) == EXPLORED + Counter(
        explore=1, dataset=1, check=1, capture=1, probe=3, probe_text=2
    )


def test_an_added_model_reads_every_dataset_once(finished_world: World, config: dict[str, Any]) -> None:
    config["models"]["other"] = {"source": {"folder": "data/model"}, "layers": [0, 3]}
    assert finished_world.planned(config) == ALWAYS + Counter(model=1, capture=1, probe=2)


def test_an_added_pooling_visits_the_heads_of_its_kind_and_fits_itself_alone(
    finished_world: World, config: dict[str, Any], tmp_path: Path
) -> None:
    config["probes"]["sae_poolings"] = ["sum", "last", "max"]
    world = finished_world.copy(tmp_path / "pooling")
    assert world.planned(config) == EXPLORED + Counter(probe=2)
    before = {path: path.stat().st_mtime_ns for path in (world.folder / "results/probes").rglob("*.parquet")}
    world.run(*(f"results/probes/mine/reviews/{sae}/probes.json" for sae in config["saes"]), config=config)
    after = {path: path.stat().st_mtime_ns for path in (world.folder / "results/probes").rglob("*.parquet")}
    assert {path: after[path] for path in before} == before
    assert sorted({path.name for path in after.keys() - before.keys()}) == ["max.parquet", "max.predictions.parquet"]


def test_changed_probe_settings_rerun_every_probe_and_no_capture(finished_world: World, config: dict[str, Any]) -> None:
    config["probes"]["strict"]["seeds"] = 3
    assert finished_world.planned(config) == EXPLORED + Counter(check=1, probe=3, probe_text=2)


def test_dropping_a_head_reruns_only_what_shows_it(finished_world: World, config: dict[str, Any]) -> None:
    del config["saes"]["mine-l3"]
    assert finished_world.planned(config) == EXPLORED


def test_a_dropped_pooling_rewrites_the_records_of_its_heads(finished_world: World, config: dict[str, Any]) -> None:
    config["probes"]["sae_poolings"] = ["sum"]
    assert finished_world.planned(config) == EXPLORED + Counter(probe=2)


def test_a_new_title_redraws_and_computes_nothing(finished_world: World, config: dict[str, Any]) -> None:
    config["datasets"]["reviews"]["title"] = "Reviews"
    assert finished_world.planned(config) == ALWAYS - Counter(tables=1, scoreboard=1)


def test_what_is_to_be_laid_out_fits_no_probe(finished_world: World, config: dict[str, Any]) -> None:
    config["explorer"] = {"features": 5}
    planned = finished_world.planned(config)
    assert planned["explore"] == 1
    assert planned.keys() <= {"explore", "report"}
    config["explorer"] = {"features": 0}
    assert "explore" not in finished_world.planned(config)


def test_batch_and_shard_sizes_rerun_nothing(finished_world: World, config: dict[str, Any]) -> None:
    config["capture"] = {"batch_tokens": 128, "shard_tokens": 512}
    assert finished_world.planned(config) == Counter()


def test_another_maximal_length_recaptures(finished_world: World, config: dict[str, Any]) -> None:
    config["models"]["mine"]["max_length"] = 32
    assert finished_world.planned(config) == EXPLORED + Counter(capture=1, probe=3)


def test_touching_every_file_reruns_nothing(finished_world: World, config: dict[str, Any], tmp_path: Path) -> None:
    world = finished_world.copy(tmp_path / "touched")
    for path in [*world.folder.rglob("*"), *(ROOT / "workflow").rglob("*"), *(ROOT / "src").rglob("*.py")]:
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    assert world.planned(config) == Counter()


def test_a_comment_in_the_config_reruns_nothing(finished_world: World, config: dict[str, Any]) -> None:
    assert finished_world.planned(config) == Counter()
    path = finished_world.folder / "mine.yaml"
    path.write_text("# a comment\n" + path.read_text())
    assert finished_world.planned() == Counter()


def test_a_changed_row_reruns_its_dependents_and_no_model_or_sae(
    finished_world: World, config: dict[str, Any], tmp_path: Path
) -> None:
    world = finished_world.copy(tmp_path / "changed")
    path = world.folder / "data/reviews.csv"
    path.write_text(path.read_text().replace("soil", "mud", 1))
    assert world.planned(config) == EXPLORED + Counter(dataset=1, check=1, capture=1, probe=3, probe_text=2)
