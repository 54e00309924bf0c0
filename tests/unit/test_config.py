"""What a user may say, and the one line they get for what they may not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera import config as module
from tessera import config_file
from tessera.errors import UserError

ROOT = Path(__file__).parents[2]


def minimal(**more: Any) -> dict[str, Any]:
    return {"datasets": {"d": {"source": {"file": "x.csv"}}}, **more}


def hub_dataset(**source: Any) -> dict[str, Any]:
    return {"datasets": {"d": {"source": {"hub": "a/b", "revision": "unpinned", **source}}}}


DEMO = {"m": {"source": {"demo": "large"}, "layers": [1]}}


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (minimal(sed=1), "sed: unknown key. Mend: "),
        (minimal(seed="a"), "seed: 'a' will not do: input should be a valid integer. Mend: "),
        ({}, "datasets: this key is missing. Mend: "),
        ({"datasets": {}}, "datasets: {} will not do: dictionary should have at least 1 item"),
        ({"datasets": None}, "datasets: None will not do"),
        ({"datasets": {"D!": {"source": {"file": "x"}}}}, "datasets.D!: 'D!' is not an id. Mend: use lower-case"),
        ({"datasets": {"d": {}}}, "datasets.d.source: this key is missing"),
        (
            {"datasets": {"d": {"source": 3}}},
            "datasets.d.source: 3 names no kind of source. Mend: give one of the keys",
        ),
        ({"datasets": {"d": {"source": {"fil": "x"}}}}, "datasets.d.source: {'fil': 'x'} names no kind of source"),
        (
            {"datasets": {"d": {"source": {"release": "x"}}}},
            "datasets.d.source: 'release' is not a kind of source here",
        ),
        ({"datasets": {"d": {"source": {"hub": "a/b"}}}}, "datasets.d.source.revision: this key is missing"),
        (
            {"datasets": {"d": {"source": {"hub": "a/b", "revision": "main"}}}},
            "datasets.d.source.revision: 'main' does not have the form",
        ),
        (
            hub_dataset(config="en", configs=["en", "de"]),
            "datasets.d.source.configs: config is given, too. Mend: keep one of them.",
        ),
        (hub_dataset(configs=["en", "en"]), "datasets.d.source.configs: en is listed twice"),
        (hub_dataset(configs=[]), "datasets.d.source.configs: [] will not do"),
        (hub_dataset(subset="config"), "datasets.d.source.subset: there are no configs to take it from"),
        (
            {"datasets": {"d": {**hub_dataset(subset="split")["datasets"]["d"], "subset": "lang"}}},
            "datasets.d.source.subset: the subset is the column 'lang' already. Mend: keep one of them.",
        ),
        (minimal(models={"m": {"source": {"folder": "x"}, "layers": ["a"]}}), "models.m.layers.0: 'a' will not do"),
        (
            minimal(models={"m": {"source": {"folder": "x"}, "layers": [1, 1]}}),
            "models.m.layers: 1 is listed twice. Mend: list it once.",
        ),
        (
            minimal(models={"m": {"source": {"demo": "large"}, "layers": [9]}}),
            "models.m.layers: layer 9 is beyond the 6",
        ),
        (minimal(models={"text": {"source": {"folder": "x"}}}), "models.text: this id is taken by the workflow itself"),
        (
            minimal(models={"m": {"source": {"folder": "x"}, "datasets": ["e"]}}),
            "models.m.datasets: there is no dataset 'e'. Mend: use one of: d.",
        ),
        (
            minimal(saes={"s": {"model": "m", "layer": 1, "width": 9, "source": {"folder": "y"}}}),
            "saes.s.model: there is no model 'm'",
        ),
        (
            minimal(models=DEMO, saes={"s": {"model": "m", "layer": 7, "width": 9, "source": {"demo": "topk"}}}),
            "saes.s.layer: layer 7 is beyond the 6 layers of 'm'. Mend: use 0 to 5.",
        ),
        (
            minimal(models=DEMO, saes={"layer-1": {"model": "m", "layer": 1, "width": 9, "source": {"folder": "y"}}}),
            "saes.layer-1: this id is taken",
        ),
        (
            minimal(models=DEMO, saes={"c": {"model": "m", "layer": 1, "width": 9, "source": {"control": "s"}}}),
            "saes.c.source.control: there is no SAE 's'. Mend: name an SAE that is none.",
        ),
        (
            minimal(
                models=DEMO,
                saes={
                    "s": {"model": "m", "layer": 1, "width": 8, "source": {"demo": "topk"}},
                    "c": {"model": "m", "layer": 1, "width": 9, "source": {"control": "s"}},
                },
            ),
            "saes.c.source.control: 's' has another width, so there is nothing to match. Mend: give both the same width.",
        ),
        (minimal(probes={"thresholds": [0]}), "probes.thresholds.0: 0 will not do: input should be greater than 0"),
        (minimal(probes={"sae_poolings": ["top-0"]}), "probes.sae_poolings.0: 'top-0' does not have the form"),
        (minimal(probes={"protocols": []}), "probes.protocols: [] will not do"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_key(raw: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        config_file.parse(raw)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert ". Mend: " in str(caught.value)


def test_a_key_given_twice_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("datasets:\n  a: {source: {file: x}}\n  a: {source: {file: y}}\n")
    with pytest.raises(UserError, match=r"mine\.yaml, line 3: the key 'a' is given twice"):
        config_file.check_files([path])


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n", "\x00"])
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        config_file.check_files([path])


def test_languages_that_are_configurations_or_splits_are_subsets_to_transfer_between() -> None:
    transfer = {"kind": "language", "dataset": "d", "model": "m"}
    for source in ({"subset": "split", "splits": ["en", "de"]}, {"subset": "config", "configs": ["en", "de"]}):
        config = config_file.parse({**hub_dataset(**source), "models": DEMO, "transfers": {"t": transfer}})
        assert config.datasets["d"].has_subsets
    with pytest.raises(UserError, match=r"transfers\.t\.dataset: 'd' has no subsets"):
        config_file.parse({**hub_dataset(), "models": DEMO, "transfers": {"t": transfer}})


def test_the_default_config_is_valid_and_gives_the_demo_world() -> None:
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config = config_file.parse(raw)
    assert config.probes.datasets == ["docstrings", "requests"]
    assert len({(sae.layer, sae.width) for sae in config.saes.values()}) == 4
    assert {entry.kind for entry in config.transfers.values()} == {
        "language",
        "task",
        "model",
        "modality",
        "dictionary",
    }


# --- behaviours and transfers --------------------------------------------------------------------------------------

WORLD: dict[str, Any] = {
    "datasets": {
        "d": {"source": {"file": "x.csv"}, "subset": "language"},
        "e": {"source": {"file": "y.csv"}},
        "questions": {"source": {"file": "q.csv"}, "label": None, "columns": ["a", "b"]},
        "pictures": {"source": {"images": "pictures"}},
    },
    "models": {
        "m": {"source": {"demo": "large"}, "layers": [1]},
        "n": {"source": {"demo": "tuned"}, "datasets": ["d"]},
        "v": {"source": {"demo": "vision"}, "images": True},
    },
    "saes": {
        "s": {"model": "m", "layer": 1, "width": 8, "source": {"demo": "topk"}},
        "s-n": {"model": "n", "layer": 1, "width": 8, "source": {"borrowed": "s"}},
    },
    "behaviours": {
        "b": {"rule": "likelihood", "dataset": "questions", "model": "m", "options": ["{a}", "{b}"], "answer": "{a}"}
    },
}
GOOD: dict[str, dict[str, Any]] = {
    "language": {"dataset": "d", "model": "m", "translations": "e", "selections": ["none", "top-8", "l1"]},
    "task": {"datasets": ["d", "e"], "model": "m", "labels": {"e": {"x": "y"}}},
    "model": {"behaviours": ["b"], "published": {"e": None, "d": "m"}, "models": ["m"]},
    "modality": {"model": "v", "images": "pictures", "names": "d"},
    "dictionary": {"dataset": "d", "models": ["m", "n"]},
}


def transferring(kind: str, **changed: Any) -> dict[str, Any]:
    return {**WORLD, "transfers": {"t": {"kind": kind, **GOOD[kind], **changed}}}


@pytest.mark.parametrize("kind", GOOD)
def test_each_kind_of_transfer_is_one_entry(kind: str) -> None:
    assert config_file.parse(transferring(kind)).transfers["t"].kind == kind


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (transferring("language", dataset="x"), "transfers.t.dataset: there is no dataset 'x'. Mend: use one of: d, e"),
        (transferring("language", dataset="e", translations=None), "transfers.t.dataset: 'e' has no subsets"),
        (transferring("language", model="x"), "transfers.t.model: there is no model 'x'"),
        (transferring("language", model="n"), "transfers.t: 'n' does not read 'e'. Mend: add it to models.n.datasets"),
        (transferring("language", saes=["x"]), "transfers.t.saes: there is no SAE 'x'"),
        (
            transferring("language", selections=["top-0"]),
            "transfers.t.selections.0: 'top-0' does not have the form",
        ),
        (transferring("language", train_shares=[0.5, 0.5]), "transfers.t.train_shares: 0.5 is listed twice"),
        (transferring("task", datasets=["d", "questions"], labels={}), "transfers.t: 'questions' has no labels"),
        (transferring("task", labels={"x": {}}), "transfers.t.labels: there is no dataset of this transfer 'x'"),
        (transferring("model", behaviours=["x"]), "transfers.t.behaviours: there is no behaviour 'x'"),
        (transferring("model", behaviours=[], published={}), "transfers.t: there is no behaviour to predict"),
        (transferring("model", published={"e": "x"}), "transfers.t.published.e: there is no model 'x'"),
        (transferring("modality", model="m"), "transfers.t: 'm' does not read 'pictures'"),
        (transferring("modality", images="d"), "transfers.t.images: 'd' holds texts"),
        (
            transferring("dictionary", models=["m", "v"]),
            "transfers.t.models: no SAE of 'm' or 'v' is read on the other",
        ),
        (
            {**WORLD, "transfers": {"t": {"kind": "x"}}},
            "transfers.t: there is no 'kind' 'x'. Mend: use 'language', 'task'",
        ),
        ({**WORLD, "behaviours": {"d": WORLD["behaviours"]["b"]}}, "behaviours.d: a dataset has this id, too"),
        (
            {**WORLD, "behaviours": {"b": {**WORLD["behaviours"]["b"], "rule": "guess"}}},
            "behaviours.b: there is no 'rule' 'guess'. Mend: use 'likelihood', 'generation'",
        ),
        ({**WORLD, "transfers": {"t": {}}}, "transfers.t: the key 'kind' is missing"),
        ({**WORLD, "probes": {"datasets": ["questions"]}}, "probes.datasets: 'questions' has no labels"),
        ({**WORLD, "probes": {"alone": ["nobody"]}}, "probes.alone: there is no dataset 'nobody'"),
        ({**WORLD, "probes": {"alone": ["pictures"]}}, "probes.alone: 'pictures' has no subsets"),
        ({**WORLD, "probes": {"alone": ["questions"]}}, "probes.alone: 'questions' has no labels"),
        ({**WORLD, "probes": {"alone": ["pictures"], "datasets": []}}, "probes.alone: 'pictures' is not probed"),
        (
            {**WORLD, "models": {**WORLD["models"], "n": {**WORLD["models"]["n"], "datasets": ["pictures"]}}},
            "models.n.datasets: 'pictures' holds images",
        ),
        (
            {**WORLD, "saes": {**WORLD["saes"], "x": {**WORLD["saes"]["s-n"], "source": {"borrowed": "s-n"}}}},
            "saes.x.source.borrowed: 's-n' is borrowed itself",
        ),
    ],
)
def test_a_transfer_that_cannot_be_is_named_before_anything_runs(raw: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        config_file.parse(raw)
    assert str(caught.value).startswith(line), str(caught.value)


def test_the_schema_on_disk_is_the_models_schema() -> None:
    assert (ROOT / "config/schema.json").read_text() == module.schema_json()


def test_the_key_tables_on_disk_are_the_models_tables() -> None:
    readme = (ROOT / "config/README.md").read_text()
    assert module.with_key_tables(readme) == readme


def test_every_key_is_described() -> None:
    for entry in [*module.SECTIONS, *module.SOURCES]:
        assert entry.__doc__
        assert all(field.description for field in entry.model_fields.values()), entry
