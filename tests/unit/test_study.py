"""What a config amounts to on disk."""

from pathlib import Path
from typing import Any

import pytest

from tessera.config import parse
from tessera.errors import UserError
from tessera.plan import Head, capture_id, hidden_head
from tessera.study import Study


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def study(**more: Any) -> Study:
    raw = {
        "datasets": {"a": {"source": {"demo": "docstrings"}, "title": "A"}, "b": {"source": {"file": "b.csv"}}},
        "models": {
            "m": {"source": {"demo": "large"}, "layers": [1]},
            "n": {"source": {"folder": "n"}, "datasets": ["b"], "layers": [0]},
        },
        "saes": {"s": {"source": {"demo": "topk"}, "model": "m", "layer": 3, "width": 512}},
        "probes": {"sae_poolings": ["sum", "last"], "hidden_poolings": ["mean"], "text": ["majority"]},
    }
    return Study(parse({**raw, **more}))


def test_every_pair_of_a_model_and_its_datasets_gets_one_capture_of_all_its_heads() -> None:
    heads = (hidden_head(1), Head("s", 3, "s"))
    assert study().captures == {
        ("m", "a"): {capture_id(heads): tuple(sorted(heads))},
        ("m", "b"): {capture_id(heads): tuple(sorted(heads))},
        ("n", "b"): {capture_id([hidden_head(0)]): (hidden_head(0),)},
    }


def test_every_head_of_every_capture_is_probed_and_every_text() -> None:
    assert study().text_probes() == ["results/probes/text/a/majority.parquet", "results/probes/text/b/majority.parquet"]
    assert study().head_probes() == [
        *(f"results/probes/m/{dataset}/{head}/probes.json" for dataset in "ab" for head in ("layer-1", "s")),
        "results/probes/n/b/layer-0/probes.json",
    ]


def test_poolings_and_thresholds_suit_the_kind_of_head() -> None:
    of_sae, of_layer = study().probe_params("m", "s"), study().probe_params("m", "layer-1")
    assert (of_sae["poolings"], of_sae["thresholds"]) == (["sum", "last"], [None, 1.0])
    assert (of_layer["poolings"], of_layer["thresholds"]) == (["mean"], [None])


def test_a_title_is_no_part_of_what_a_rule_depends_on() -> None:
    assert "title" not in study().entry("datasets", "a")
    assert study().titles()["datasets"] == {"a": "A", "b": "b"}


def test_a_local_source_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^datasets\.b\.source: there is no 'b\.csv'\. Mend: correct the path"):
        study().require_sources()


def test_sources_of_the_demo_world_are_what_it_makes() -> None:
    assert study().made_source("models", "m") == "results/demo/models/large/demo.json"
    assert study().made_source("saes", "s") == "results/demo/saes/s/demo.json"
    assert study().made_source("datasets", "b") is None
