"""The configs of the study and of GPT-2 name what there is: SAEs, datasets, columns. Nothing is fetched."""

import csv
import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any

import gemma_scope_made
import pytest
import yaml

from tessera import config_file
from tessera.config import Config, HubDataset, HubModel, SaeRelease

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "resources/reference"
WIDTHS = {"16k": 16384, "65k": 65536, "131k": 131072, "1m": 1048576}


@cache
def config(name: str) -> Config:
    return config_file.parse(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")))


@cache
def directory() -> dict[str, Any]:
    return gemma_scope_made.directory()


def rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def released(name: str) -> list[tuple[Any, SaeRelease]]:
    return [(sae, sae.source) for sae in config(name).saes.values() if isinstance(sae.source, SaeRelease)]


@pytest.mark.parametrize("name", ["paper", "gpt2"])
def test_every_sae_is_in_the_directory_of_sae_lens(name: str) -> None:
    for _, source in released(name):
        assert source.id in {each["id"] for each in directory()[source.release]["saes"]}, source


def test_gemma_scope_is_canonical_and_its_layers_and_widths_are_those_of_the_ids() -> None:
    for sae, source in released("paper"):
        found = re.fullmatch(r"layer_(\d+)/width_(\w+)/canonical", source.id)
        assert found is not None, source
        assert source.release.endswith("-pt-res-canonical") or source.release.endswith("-it-res-canonical")
        assert (sae.layer, sae.width, sae.site) == (int(found[1]), WIDTHS[found[2]], "resid_post"), source
        assert directory()[source.release]["model"] == sae.model


def test_those_of_gpt2_read_what_enters_the_layer_of_the_id() -> None:
    for sae, source in released("gpt2"):
        assert source.id == f"blocks.{sae.layer}.hook_resid_pre"
        assert (sae.site, sae.width) == ("resid_pre", 24576)
        # What enters a layer is what the layer before gives, and is compared with it.
        assert sae.layer - 1 in config("gpt2").models["gpt2"].layers


def test_gemma_scope_has_no_more_widths_of_a_million_than_the_config_names() -> None:
    of_9b = {source.id for _, source in released("paper") if "1m" in source.id}
    there = {
        (release, each["id"])
        for release in ("gemma-scope-9b-pt-res-canonical", "gemma-scope-9b-it-res-canonical")
        for each in directory()[release]["saes"]
        if re.fullmatch(r"layer_(9|20|31)/width_1m/canonical", each["id"])
    }
    assert there == {("gemma-scope-9b-pt-res-canonical", each) for each in of_9b}


@pytest.mark.parametrize("name", ["paper", "gpt2"])
def test_the_active_features_that_costs_are_counted_with_are_those_of_the_directory(name: str) -> None:
    stated = {row["what"]: float(row["value"]) for row in rows("sizes") if row["fact"] == "l0"}
    for _, source in released(name):
        (each,) = [each for each in directory()[source.release]["saes"] if each["id"] == source.id]
        in_path = re.search(r"average_l0_(\d+)", each["path"])
        assert stated[f"{source.release}/{source.id}"] == float(in_path[1] if in_path else each["l0"])


def inventory() -> dict[str, dict[str, str]]:
    """Repository -> its row; a row may stand for several repositories, written {one,other}."""
    found = {}
    for row in rows("dataset_inventory"):
        parts = [part.split(",") for part in re.split(r"[{}]", row["dataset"])]
        for name in itertools.product(*parts):
            found["".join(name)] = row
    return found


def by_repository() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for dataset in config("paper").datasets.values():
        assert isinstance(dataset.source, HubDataset)
        found.setdefault(dataset.source.hub, []).append(dataset)
    return found


def test_every_dataset_of_the_inventory_is_in_the_config_and_no_other() -> None:
    assert set(by_repository()) == set(inventory())


def test_columns_and_splits_are_those_of_the_inventory_where_it_knows_them() -> None:
    for hub, datasets in by_repository().items():
        row = inventory()[hub]
        contents = {dataset.image if dataset.holds_images else dataset.text for dataset in datasets}
        labels = {dataset.label for dataset in datasets}
        if row["text_field"]:
            assert contents == set(re.findall(r"(?:^|/ )(\w+)", row["text_field"])), hub
        if row["label_field"]:
            assert labels == {row["label_field"]}, hub
        if re.fullmatch(r"[\w,]+", row["split"]):
            assert {split for dataset in datasets for split in dataset.source.splits} == set(row["split"].split(","))


def test_languages_are_subsets() -> None:
    paper = config("paper")
    for name in ("toxicity", "toxicity-paired", "toxicity-translated", "sentiment", "sentiment-translated"):
        assert paper.datasets[name].has_subsets
    assert len(paper.datasets["sentiment"].source.configs) == 8


def test_poolings_thresholds_and_protocols_are_the_studys() -> None:
    probes = config("paper").probes
    assert set(probes.sae_poolings) == {"sum", "top-20", "top-50", "last"}
    assert probes.thresholds == [None, 1.0]
    assert probes.protocols == ["paper", "strict"]


def test_models_and_layers_are_those_of_the_published_results() -> None:
    published: dict[str, set[int]] = {}
    for row in rows("results_tidy"):
        published.setdefault(row["model"], set()).add(int(row["layer"]))
    ours = {model.source.hub: model for model in config("paper").models.values() if isinstance(model.source, HubModel)}
    assert set(ours) == set(published)
    for hub, layers in published.items():
        assert layers == set(ours[hub].layers), hub


def test_every_dataset_and_model_has_a_title() -> None:
    for name in ("paper", "gpt2"):
        given = config(name)
        assert all(entry.title for entry in [*given.datasets.values(), *given.models.values()])


def test_sizes_of_every_model_are_known() -> None:
    known = {(row["what"], row["fact"]) for row in rows("sizes")}
    for name in ("paper", "gpt2"):
        for model in config(name).models.values():
            assert isinstance(model.source, HubModel)
            for fact in ("parameters", "block_parameters", "hidden_size", "stored_bytes"):
                assert (model.source.hub, fact) in known
