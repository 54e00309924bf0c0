"""What a config amounts to on disk."""

from pathlib import Path
from typing import Any

import pytest

from tessera.config_file import parse
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


def test_images_have_no_words_to_probe_and_their_most_frequent_label_is_known() -> None:
    datasets = {"a": {"source": {"demo": "docstrings"}}, "pictures": {"source": {"images": "pictures"}}}
    models = {"v": {"source": {"demo": "vision"}, "layers": [1], "images": True}}
    saes = {"s": {"source": {"demo": "topk"}, "model": "v", "layer": 3, "width": 512}}
    given = study(
        datasets=datasets, models=models, saes=saes, probes={"text": ["tfidf-word", "tfidf-char", "length", "majority"]}
    )
    arms = ("tfidf-word", "tfidf-char", "length", "majority")
    of_text = [f"results/probes/text/a/{arm}.parquet" for arm in arms]
    assert given.text_probes() == [*of_text, "results/probes/text/pictures/majority.parquet"]
    assert given.explorer_probes("v", "a")["text_probes"] == of_text[:2]
    assert given.explorer_probes("v", "pictures")["text_probes"] == []


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


# --- transfers -----------------------------------------------------------------------------------------------------


def transferring(**entry: Any) -> Study:
    raw: dict[str, Any] = {
        "datasets": {
            "a": {"source": {"demo": "requests"}, "subset": "language"},
            "b": {"source": {"demo": "translations"}},
            "quiz": {"source": {"demo": "quiz"}, "label": None},
            "digits": {"source": {"demo": "digits"}, "image": "image"},
            "names": {"source": {"demo": "digit-names"}},
        },
        "models": {
            "m": {"source": {"demo": "large"}, "layers": [1, 3]},
            "n": {"source": {"demo": "tuned"}, "layers": [3]},
            "v": {"source": {"demo": "vision"}, "layers": [3], "images": True, "datasets": ["digits", "names"]},
        },
        "saes": {
            "s": {"model": "m", "layer": 3, "width": 64, "source": {"demo": "topk"}},
            "wide": {"model": "m", "layer": 3, "width": 128, "source": {"demo": "topk"}},
            "random": {"model": "m", "layer": 3, "width": 64, "source": {"control": "s"}},
            "s-n": {"model": "n", "layer": 3, "width": 64, "source": {"borrowed": "s"}},
            "own-n": {"model": "n", "layer": 3, "width": 64, "source": {"demo": "topk"}},
            "s-v": {"model": "v", "layer": 3, "width": 64, "source": {"borrowed": "s"}},
        },
        "behaviours": {
            "q": {"rule": "likelihood", "dataset": "quiz", "model": "n", "options": ["x", "y"], "answer": "x"}
        },
        "probes": {"datasets": ["a"], "models": ["m", "n"]},
        "transfers": {"t": entry},
    }
    return Study(parse(raw))


def heads_of(study: Study, model: str, dataset: str) -> set[str]:
    return {head.id for head in study.heads(model, dataset)}


def test_a_dataset_that_only_a_transfer_reads_is_captured_for_what_that_reads_alone() -> None:
    given = transferring(kind="language", dataset="a", translations="b", model="m", saes=["s"], layers=[3])
    assert heads_of(given, "m", "a") == {"layer-1", "layer-3", "s", "wide", "random"}
    assert heads_of(given, "m", "b") == {"layer-3", "s"}
    assert ("n", "b") not in given.captures
    assert ("m", "quiz") not in given.captures
    found = {(entry["head"], *entry["manifests"]) for entry in given.transfer_inputs("t")}
    assert found == {("s", "a", "b"), ("layer-3", "a", "b")}


def test_a_control_is_no_input_of_a_transfer_and_a_borrowed_sae_is_probed_only_where_there_is_no_other() -> None:
    given = transferring(kind="task", datasets=["a", "b"], model="m")
    assert "random" not in {entry["head"] for entry in given.transfer_inputs("t")}
    assert {head.id for head in given.probed_heads("n")} == {"layer-3", "own-n"}
    assert given.probed_heads("v") == []
    assert given.probed_saes() == {"s": "m", "wide": "m", "random": "m", "own-n": "n"}


def test_images_are_read_through_the_vision_tower_too_and_names_are_not() -> None:
    given = transferring(kind="modality", model="v", images="digits", names="names")
    assert heads_of(given, "v", "digits") == {"vision", "layer-3", "s-v"}
    assert heads_of(given, "v", "names") == {"layer-3", "s-v"}
    by_head = {entry["head"]: entry for entry in given.transfer_inputs("t")}
    assert (by_head["vision"]["arm"], by_head["vision"]["layer"]) == ("vision", None)
    assert list(by_head["vision"]["manifests"]) == ["digits"]


def test_a_transfer_of_behaviours_waits_for_their_answers() -> None:
    given = transferring(kind="model", behaviours=["q"], models=["m", "n"])
    assert "results/behaviours/q.json" in given.transfer_files("t")
    assert given.transfer_settings("t")["asked"] == {"q": {"dataset": "quiz", "model": "n"}}
    assert given.transfer_settings("t")["tables"] == ["quiz"]


def test_a_transfer_of_dictionaries_reads_pairs_and_matches_widths() -> None:
    given = transferring(kind="dictionary", dataset="a", models=["m", "n"])
    settings = given.transfer_settings("t")
    assert settings["pairs"] == [["s", "s-n"]]
    assert {entry["head"] for entry in settings["inputs"]} == {"s", "s-n", "own-n"}
    assert settings["matched"] == [["s", "wide"]]


def test_the_title_of_a_transfer_is_no_part_of_its_settings() -> None:
    one, other = (
        transferring(kind="dictionary", dataset="a", models=["m", "n"], title=title) for title in ("One", "Other")
    )
    assert one.transfer_settings("t") == other.transfer_settings("t")
    assert one.titles()["transfers"] == {"t": {"kind": "dictionary", "title": "One", "origin": None}}


# --- explorer ------------------------------------------------------------------------------------------------------


def test_every_probed_pair_with_an_sae_is_explored_and_the_off_switch_leaves_none() -> None:
    assert study().explored_files() == ["results/explorer/m/a.json", "results/explorer/m/b.json"]
    assert study(probes={"datasets": ["b"]}).explored() == [("m", "b")]
    assert study(explorer={"features": 0}).explored_files() == []


def test_features_of_few_tasks_stand_in_the_report_and_those_of_many_beside_it() -> None:
    assert study().explorer_pages() == {}
    assert study(explorer={"features": 200}).explorer_pages() == {}
    assert study(explorer={"features": 400, "examples": 30}).explorer_pages() == {
        "results/explorer/m/a.json": "results/report/m/a.html",
        "results/explorer/m/b.json": "results/report/m/b.html",
    }
    assert study(explorer={"features": 0}).explorer_pages() == {}


def test_the_explorer_reads_every_dataset_that_holds_the_head_and_no_control() -> None:
    at = {"model": "m", "layer": 3, "width": 512}
    saes = {"s": {"source": {"demo": "topk"}, **at}, "chance": {"source": {"control": "s"}, **at}}
    found = study(saes=saes, probes={"datasets": ["b"], "text": ["tfidf-word", "length"]})
    assert found.explorer_heads("m", "b") == {
        "s": {"sae": "s", "manifests": {"b": found.manifests["m", "b", found.head("m", "s")]}}
    }
    both = study(saes=saes)
    assert list(both.explorer_heads("m", "b")["s"]["manifests"]) == ["b", "a"]
    assert found.explorer_probes("m", "b") == {
        "head_probes": [f"results/probes/m/b/{head}/probes.json" for head in ("layer-1", "s")],
        "text_probes": ["results/probes/text/b/tfidf-word.parquet"],
    }
