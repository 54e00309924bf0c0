"""What a config will cost, against sums done by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tessera import config_file
from tessera.costs import Amount, Costs, Facts, _shown, times, total, words
from tessera.files import write_json
from tessera.study import Study

PIN = "0" * 40

SIZES = """\
what,fact,value,basis,provenance
own/model,parameters,1000000,published,x
own/model,block_parameters,1000,published,x
own/model,hidden_size,10,published,x
own/model,stored_bytes,4,estimated,x
own/model,gated,1,published,x
own/texts,examples,200,estimated,x
own/texts,tokens,50,guess,x
own/texts,classes,2,published,x
own/texts,gigabytes,0.5,published,x
own/topics,examples,100,published,x
own/topics,tokens,500,published,x
own/topics,classes,7,published,x
r/i,l0,20,published,x
"""
RATES = """\
rate,value,basis,provenance
bytes_per_active_feature,5,measured,x
active_features,100,guess,x
strict_seconds_low,0.36,measured,x
strict_seconds_high,3.6,measured,x
paper_seconds_low,0.036,measured,x
paper_seconds_high,0.36,measured,x
"""
CARDS = """\
card,bfloat16_tflops,tf32_tflops,float32_tflops,memory_gb,efficiency,provenance
Fast,100,50,10,80,0.5,x
Small,100,50,10,0.001,0.5,x
"""


def config(**more: Any) -> dict[str, Any]:
    hub = {"revision": PIN}
    return {
        "datasets": {
            "texts": {"source": {"hub": "own/texts", **hub}},
            "topics": {"source": {"hub": "own/topics", **hub}},
        },
        "models": {"m": {"source": {"hub": "own/model", **hub}, "layers": [3], "dtype": "bfloat16", "max_length": 100}},
        "saes": {"s": {"source": {"release": "r", "id": "i"}, "model": "m", "layer": 4, "width": 64}},
        "probes": {"text": ["tfidf-word", "majority"], "regimes": {"shuffled": False}},
        **more,
    }


@pytest.fixture
def costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for name, content in (("sizes", SIZES), ("rates", RATES), ("cards", CARDS)):
        Path(f"{name}.csv").write_text(content)
    return lambda **more: Costs(Study(config_file.parse(config(**more))), Facts(Path()))


def close(amount: Amount, value: float, basis: str, missing: int = 0) -> bool:
    return (amount.value, amount.basis, amount.missing) == (pytest.approx(value), basis, missing)


def test_a_sum_and_a_product_rest_on_the_weakest_of_their_parts() -> None:
    firm, soft, unknown = Amount(2, "measured"), Amount(3, "guess"), Amount(missing=1)
    assert close(total([firm, soft]), 5, "guess")
    assert close(total([firm, unknown]), 2, "measured", missing=1)
    assert close(times(firm, soft), 6, "guess")
    assert times(firm, unknown).missing == 1
    assert times(Amount(), unknown) == Amount()


def test_a_pass_reads_every_token_once_up_to_the_deepest_layer(costs: Any) -> None:
    given = costs()
    # 200 texts of 50 tokens; 100 of 500, cut at 100.
    assert close(given.tokens("m", "texts"), 10_000, "guess")
    assert close(given.tokens("m", "topics"), 10_000, "published")
    ((_, heads), _) = given.passes("m")
    assert close(given.forward("m", "texts", heads), 2 * 1000 * 5 * 10_000 / 1e15, "guess")
    assert close(given.encode("m", "texts", heads), 2 * 10 * 64 * 10_000 / 1e15, "guess")


def test_what_enters_a_layer_costs_a_layer_less(costs: Any) -> None:
    saes = {**config()["saes"]["s"], "site": "resid_pre"}
    given = costs(saes={"s": saes})
    ((_, heads), _) = given.passes("m")
    assert close(given.forward("m", "topics", heads), 2 * 1000 * 4 * 10_000 / 1e15, "published")


def test_shards_hold_active_features_and_three_poolings_of_states(costs: Any) -> None:
    given = costs()
    ((_, heads), _) = given.passes("m")
    assert close(given.shards("m", "topics", heads), (10_000 * 20 * 5 + 100 * 3 * 10 * 4) / 1e9, "published")


def test_downloads_are_counted_until_they_are_there(costs: Any) -> None:
    assert close(costs().model_download("m"), 0.004, "estimated")
    assert close(costs().sae_download("s"), 2 * 10 * 64 * 4 / 1e9, "estimated")
    assert close(costs().dataset_download(), 0.5, "published", missing=1)
    write_json("results/models/m/revision.json", {})
    write_json("results/saes/s/revision.json", {})
    write_json("results/datasets/topics.json", {"n_examples": 90, "labels": {"a": 40, "b": 50}})
    given = costs()
    assert given.model_download("m") == given.sae_download("s") == Amount()
    assert close(given.dataset_download(), 0.5, "published")
    assert close(given.examples("topics"), 90, "measured")
    assert close(given.problems("topics"), 1, "measured")


def test_a_capture_that_is_there_is_not_counted_and_its_tokens_are_measured(costs: Any) -> None:
    ((model, dataset), captures) = next(iter(costs().study.captures.items()))
    manifest = f"results/activations/{model}/{dataset}/{next(iter(captures))}/manifest.json"
    write_json(manifest, {"examples": 10, "tokens": {"read": 420}})
    given = costs()
    assert [name for name, _ in given.passes("m")] == ["topics"]
    assert close(given.tokens_each("m", "texts"), 42, "measured")
    assert given.jobs([])["capture"] == {"all": 2, "left": 1}


def test_hours_are_of_the_share_of_the_peak_that_is_reached(costs: Any) -> None:
    given = costs()
    fast, small = given.facts.cards
    forward, encode = 2 * 2 * 1000 * 5 * 10_000, 2 * 2 * 10 * 64 * 10_000
    assert close(given.hours("m", fast), (forward / 50e12 + encode / 5e12) / 3600, "guess")
    assert given.fits("m", fast)
    assert not given.fits("m", small)


def test_probes_are_counted_by_examples_classes_and_searches(costs: Any) -> None:
    given = costs(probes={**config()["probes"], "sae_poolings": ["sum"], "hidden_poolings": ["last", "mean"]})
    # Texts once, topics for each of seven classes; two thresholds of sums, two hidden poolings, words.
    fits = (200 * 1 + 100 * 7) * (2 + 2 + 1)
    assert close(given.probe_hours("low"), fits * (0.36 + 0.036) / 3600, "estimated")
    assert close(given.probe_hours("high"), fits * (3.6 + 0.36) / 3600, "estimated")


def test_curves_are_searched_under_the_strict_protocol_alone(costs: Any) -> None:
    probes = {"sae_poolings": ["sum"], "hidden_poolings": [], "text": [], "sparse_k": [1, 8], "thresholds": [None]}
    given = costs(probes={**probes, "regimes": {"shuffled": True}})
    assert close(given.probe_hours("low"), 900 * (0.36 + 0.036 + 3 * 0.36) / 3600, "estimated")


def test_the_page_says_what_is_unknown_and_what_is_not_pinned(costs: Any) -> None:
    datasets = config()["datasets"] | {"new": {"source": {"hub": "own/new", "revision": "unpinned"}}}
    page = words(costs(datasets=datasets).everything(["arms"]))
    (line,) = [line for line in page.splitlines() if line.startswith("new ")]
    assert line.split() == ["new", "unknown", "unknown"]
    (line,) = [line for line in page.splitlines() if line.startswith("m  ")]
    assert line.split()[3:6] == ["3", ">~300", ">0.02?"]
    assert summary(page)["not pinned"] == "1 of the datasets and models: run python -m tessera.pins FILE first"


def summary(page: str) -> dict[str, str]:
    """The first lines of a page, by what each is about."""
    lines = (line.partition("  ") for line in page.split("\n\n", maxsplit=1)[0].splitlines())
    return {name: told.strip() for name, _, told in lines}


def test_the_page_begins_with_what_there_is_to_decide_by(costs: Any) -> None:
    told = summary(words(costs().everything(["arms"])))
    assert list(told) == ["to fetch", "disk when all is done", "models", "probes", "jobs", "a token"]
    assert told["to fetch"] == ">~0.504 GB, of it datasets >0.5 GB"
    assert told["models"].endswith(" hours on one Fast; more cards share the passes")
    assert "Small" not in told["models"]
    assert told["a token"] == "set HF_TOKEN, and accept the terms of own/model"


def test_what_is_gated_asks_for_no_token_once_it_is_there(costs: Any) -> None:
    assert costs().gated() == ["own/model"]
    write_json("results/models/m/revision.json", {})
    assert costs().gated() == []
    assert "a token" not in summary(words(costs().everything(["arms"])))


def test_a_guess_has_two_digits_and_what_is_known_three(costs: Any) -> None:
    (line,) = [line for line in words(costs().everything(["arms"])).splitlines() if line.startswith("texts ")]
    assert line.split() == ["texts", "~200", "50?"]
    assert shown(Amount(1234, "guess")) == "1,200?"
    assert shown(Amount(0.08581, "guess", 1)) == ">0.086?"
    assert shown(Amount(1234, "estimated")) == "~1,234"
    assert shown(Amount(0.08581)) == "0.0858"


def shown(amount: Amount) -> str:
    return _shown(asdict(amount))


def test_a_study_without_models_has_a_plan(costs: Any) -> None:
    given = costs(models={}, saes={}).everything(["arms"])
    assert given["jobs"]["probe_text"] == {"all": 4, "left": 4}
    assert "probes" in words(given)
