"""The explorer's file against slow, plain references, in a small world with a planted feature."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_made import MARK, ODD, PLANTED, SETTINGS, STRICT, Made, made

from tessera import arms, examples, pooling, protocols, saved, shards, tables
from tessera.explorer import task
from tessera.explorer.task import Choices, Labelled
from tessera.files import read_json, write_json
from tessera.snapshots import write_record

LABELS = ["garden", "harbour", "kitchen"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Made:
    world = made(tmp_path_factory.mktemp("explorer") / "results", tiny_model)
    world.files = [
        *(world.probe(head, name, [None, 1.0]) for head in ("marked", "other") for name in ("sum", "last")),
        world.probe("layer-1", "mean", [None]),
        world.probe_text("tfidf-word"),
    ]
    return world


@pytest.fixture(scope="module")
def found(world: Made) -> dict[str, Any]:
    return world.write(world.results / "explorer.json")


def pooled(world: Made, found: dict[str, Any]) -> np.ndarray:
    """Examples x width by brute force, as the probe pools them."""
    of_pooling = {"sum": lambda tokens: tokens.sum(axis=0, dtype=np.float64), "last": lambda tokens: tokens[-1]}
    return np.array([of_pooling[found["probe"]["pooling"]](tokens) for tokens in world.dense(found["probe"]["head"])])


def close(told: Any, exact: Any) -> None:
    """Equal but for the digits that the file leaves out."""
    np.testing.assert_allclose(told, exact, rtol=6e-4, atol=1e-12)


# --- what is planted -----------------------------------------------------------------------------------------------


def test_the_planted_feature_is_the_top_one_and_its_strongest_examples_show_it(found: dict[str, Any]) -> None:
    top = found["features"][0]
    assert (found["probe"]["head"], top["feature"]) == ("marked", PLANTED)
    assert (top["stability"], top["same_sign"]) == (1, 1)
    label, mean, low, high = top["weights"][0]
    assert LABELS[label] == "harbour"
    assert low < mean < high
    assert mean > 0
    assert len(top["examples"]) == SETTINGS["examples"]
    for example in top["examples"]:
        assert LABELS[example["label"]] == "harbour"
        active = [token for token, value in zip(example["tokens"], example["values"], strict=True) if value]
        assert active
        assert {token.strip() for token in active} == {MARK}
    assert top["rates"]["label"] == [0, 1, 0]


# --- features ------------------------------------------------------------------------------------------------------


def test_rates_and_the_largest_activation_are_those_of_every_token(world: Made, found: dict[str, Any]) -> None:
    head = found["probe"]["head"]
    largest = {
        name: np.array([tokens.max(axis=0) for tokens in world.dense(head, name)]) for name in ("reviews", "notes")
    }
    own = largest["reviews"]
    assert len(found["features"]) == SETTINGS["features"]
    assert found["task"]["subsets"] == ["north", "south"]
    for feature in found["features"]:
        number, rates = feature["feature"], feature["rates"]
        for code, label in enumerate(LABELS):
            close(rates["label"][code], (own[world.table.labels == label, number] > 0).mean())
        for code, subset in enumerate(("north", "south")):
            close(rates["subset"][code], (own[world.table.subsets == subset, number] > 0).mean())
        assert [name for name, _ in rates["dataset"]] == ["reviews", "notes"]
        for name, rate in rates["dataset"]:
            close(rate, (largest[name][:, number] > 0).mean())
        close(feature["largest"], own[:, number].max())


def test_the_examples_of_a_feature_are_the_strongest_of_each_group(world: Made, found: dict[str, Any]) -> None:
    X, tokens = pooled(world, found), world.dense(found["probe"]["head"])
    groups, ids = world.table.groups, world.table.ids
    for feature in found["features"]:
        number = feature["feature"]
        rows = [row for row in range(len(X)) if tokens[row][:, number].max() > 0]
        rows.sort(key=lambda row: (-X[row, number], -tokens[row][:, number].max(), row))
        best = {groups[row]: row for row in reversed(rows)}
        wanted = [row for row in rows if best[groups[row]] == row][: SETTINGS["examples"]]
        assert [example["example"] for example in feature["examples"]] == [ids[row] for row in wanted]
        for example, row in zip(feature["examples"], wanted, strict=True):
            close(example["value"], X[row, number])
            window = slice(example["start"], example["start"] + len(example["tokens"]))
            close(example["values"], tokens[row][window, number])
            assert max(example["values"]) == pytest.approx(tokens[row][:, number].max(), rel=6e-4)
            assert example["cut"] == (len(tokens[row]) > len(example["tokens"]))
            assert example["subset"] == world.table.subsets[row]


def test_the_tokens_of_an_example_read_as_its_text(world: Made, found: dict[str, Any]) -> None:
    texts = dict(zip(world.table.ids, world.table.texts or [], strict=True))
    shown = {one["example"]: one for feature in found["features"] for one in feature["examples"] if not one["cut"]}
    odd = 0
    for name, example in shown.items():
        told = "".join(example["tokens"])
        assert told == texts[name]
        odd += ODD in told
    assert odd


def test_neighbours_are_the_nearest_rows_of_the_decoder(world: Made, found: dict[str, Any]) -> None:
    with saved.safe_open(world.results / "saes/marked/sae_weights.safetensors", framework="numpy") as file:
        decoder = file.get_tensor("W_dec").astype(np.float64)
    lengths = np.linalg.norm(decoder, axis=1)
    cosines = decoder @ decoder.T / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -2)
    for feature in found["features"]:
        order = np.argsort(-cosines[feature["feature"]])[:5]
        assert [other for other, _ in feature["neighbours"]] == order.tolist()
        close([cosine for _, cosine in feature["neighbours"]], cosines[feature["feature"], order])


def test_strength_stability_and_sign_are_those_of_a_model_for_each_split(world: Made, found: dict[str, Any]) -> None:
    X, strengths, weights = pooled(world, found), [], []
    threshold = found["probe"]["threshold"]
    X = X if threshold is None else (threshold <= X).astype(float)
    codes = np.searchsorted(LABELS, world.table.labels.astype(str))
    for split, model in refitted(world, found):
        assert len(np.unique(codes[split.train])) == 3
        weights.append(model.weights)
        strengths.append(np.abs(model.weights).max(axis=0) * X[split.train].std(axis=0))
    strength = np.mean(strengths, axis=0)
    order = np.argsort(-strength, kind="stable")[: SETTINGS["features"]]
    assert [feature["feature"] for feature in found["features"]] == order.tolist()
    assert found["top"] == 20
    tops = [set(np.argsort(-of_split, kind="stable")[:20]) for of_split in strengths]
    for feature in found["features"]:
        number = feature["feature"]
        close(feature["strength"], strength[number])
        close(feature["stability"], np.mean([number in top for top in tops]))
        of_splits = np.array(weights)[:, :, number]
        main = int(np.abs(of_splits.mean(axis=0)).argmax())
        assert feature["weights"][0][0] == main
        close(feature["weights"][0][1], of_splits[:, main].mean())
        close(feature["same_sign"], (np.sign(of_splits[:, main]) == np.sign(of_splits[:, main].mean())).mean())


def refitted(world: Made, found: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Each split with the model that the whole search comes to; a probe job keeps that of the first alone."""
    X = pooling.pool(shards.read_sae(world.manifest().parent, found["probe"]["head"]), found["probe"]["pooling"])
    codes = np.searchsorted(LABELS, world.table.labels.astype(str))
    protocol = protocols.strict(**STRICT)
    splits = protocol.splits(codes, world.table.groups)
    probe = protocols.Probe(arms.given(X, found["probe"]["threshold"]), protocol, codes, 3)
    choices = probe._choices(splits)
    return [
        (splits[at], model)
        for at, choice, _, model in probe._chosen(splits, choices)
        if isinstance(choice, protocols.Choice)
    ]


# --- the configuration ---------------------------------------------------------------------------------------------


def test_the_first_splits_model_is_the_saved_probe(world: Made, found: dict[str, Any]) -> None:
    told = found["probe"]
    probe = saved.read(world.results / f"probes/{told['head']}-{told['pooling']}.probe.safetensors")
    assert probe.about["threshold"] == told["threshold"]
    choices = Choices(world.files, world.results / "datasets/reviews.parquet", "reviews", "tiny")
    fitted = task.fit(choices, Labelled(world.table), world.manifest().parent, STRICT)
    weights = np.zeros_like(fitted.models[0].weights)
    weights[:, probe.tensors["features"]] = probe.tensors["weights"]
    np.testing.assert_array_equal(fitted.models[0].weights, weights)
    np.testing.assert_array_equal(fitted.models[0].intercepts, probe.tensors["intercepts"])
    assert len(fitted.models) == told["n_seeds"] == STRICT["seeds"]


def test_score_and_choice_are_those_of_the_tables(world: Made, found: dict[str, Any], tmp_path: Path) -> None:
    tables.collect(world.files, {"reviews": world.results / "datasets/reviews.parquet"}, tmp_path)
    rows = tables.pq.read_table(tmp_path / "arms.parquet").to_pylist()
    (row,) = (row for row in rows if (row["protocol"], row["arm"], row["subset"]) == ("strict", "sae", "all"))
    for name in ("macro_f1", "low", "high"):
        close(found["probe"][name], row[name])
    chosen = json.loads(row["chosen"])
    assert {name: found["probe"][name] for name in ("head", "pooling", "threshold")}.items() <= chosen["0"].items()
    assert len(found["probe"]["other_seeds"]) == STRICT["seeds"] - 1
    for seed, told in enumerate(found["probe"]["other_seeds"], start=1):
        assert told.startswith(f"{chosen[str(seed)]['head']}, {chosen[str(seed)]['pooling']}, ")


# --- reasons -------------------------------------------------------------------------------------------------------


def test_contributions_make_up_the_saved_probes_lead_over_the_runner_up(world: Made, found: dict[str, Any]) -> None:
    probe = saved.load(world.results / f"probes/{found['probe']['head']}-{found['probe']['pooling']}.probe.safetensors")
    texts = dict(zip(world.table.ids, world.table.texts or [], strict=True))
    assert len(found["predictions"]) == SETTINGS["predictions"]
    for one in found["predictions"]:
        (probabilities,) = probe.probabilities([texts[one["example"]]])
        verdict, runner_up = np.argsort(-probabilities)[:2]
        assert one["verdicts"]["sae"][0] == verdict
        assert one["against"] == runner_up
        assert one["verdicts"]["sae"][1] == pytest.approx(probabilities[verdict], abs=1e-3)
        lead = one["intercept"] + sum(part for _, _, part in one["contributions"]) + one["rest"]
        assert lead == pytest.approx(np.log(probabilities[verdict] / probabilities[runner_up]), abs=2e-2)
        parts = [abs(part) for _, _, part in one["contributions"]]
        assert parts == sorted(parts, reverse=True)
        assert one["text"] == texts[one["example"]][:600]


def test_the_values_beside_contributions_are_the_pooled_ones(world: Made, found: dict[str, Any]) -> None:
    X, rows = pooled(world, found), {name: row for row, name in enumerate(world.table.ids)}
    for one in found["predictions"]:
        for feature, value, part in one["contributions"]:
            assert part
            close(value, X[rows[one["example"]], feature])


def test_other_arms_verdicts_are_their_predictions_on_the_first_split(world: Made, found: dict[str, Any]) -> None:
    for arm, name in (("hidden", "layer-1-mean"), ("tfidf", "tfidf-word-None")):
        answers = tables.pq.read_table(world.results / f"probes/{name}.predictions.parquet").to_pylist()
        known = {
            row["example"]: row
            for row in answers
            if (row["protocol"], row["seed"]) == ("strict", 0) and row["classifier"] == "l2"
        }
        for one in found["predictions"]:
            label, probability = one["verdicts"][arm]
            assert LABELS[label] == known[one["example"]]["predicted"]
            close(probability, known[one["example"]]["scores"][label])


def test_wrong_and_right_predictions_are_shown_of_the_first_test_part(world: Made, found: dict[str, Any]) -> None:
    codes = np.searchsorted(LABELS, world.table.labels.astype(str))
    split = protocols.strict(**STRICT).splits(codes, world.table.groups)[0]
    tested = {world.table.ids[row] for row in np.flatnonzero(split.test)}
    assert {one["example"] for one in found["predictions"]} <= tested
    right = [one["verdicts"]["sae"][0] == one["label"] for one in found["predictions"]]
    assert True in right
    assert False in right


# --- the file ------------------------------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes(world: Made, found: dict[str, Any], tmp_path: Path) -> None:
    world.write(tmp_path / "again.json")
    first = (world.results / "explorer.json").read_bytes()
    assert (tmp_path / "again.json").read_bytes() == first
    assert json.loads(first) == found


def test_another_order_of_heads_and_datasets_gives_the_same_file(
    world: Made, found: dict[str, Any], tmp_path: Path
) -> None:
    heads = {
        name: {**head, "manifests": dict(reversed(head["manifests"].items()))}
        for name, head in reversed(world.heads.items())
    }
    assert world.write(tmp_path / "again.json", heads=heads) == found


def test_the_task_is_told_by_ids(found: dict[str, Any]) -> None:
    assert found["format"] == 1
    assert found["failed"] is None
    assert found["images"] == {}
    assert found["task"] == {
        "dataset": "reviews",
        "model": "tiny",
        "kind": "text",
        "labels": LABELS,
        "subsets": ["north", "south"],
        "n_examples": 96,
        "demo": False,
    }


def test_fewer_of_everything_can_be_asked_for(world: Made, found: dict[str, Any], tmp_path: Path) -> None:
    few = world.write(tmp_path / "few.json", settings={"features": 3, "examples": 1, "predictions": 0})
    assert [feature["feature"] for feature in few["features"]] == [f["feature"] for f in found["features"][:3]]
    assert [feature["examples"] for feature in few["features"]] == [f["examples"][:1] for f in found["features"][:3]]
    assert few["predictions"] == []
    assert few["top"] == 3


def test_a_probe_of_the_last_token_shows_texts_around_it(world: Made, tmp_path: Path) -> None:
    found = world.write(tmp_path / "last.json", cell_files=[world.results / "probes/marked-last.parquet"])
    assert found["probe"]["pooling"] == "last"
    tokens = world.dense("marked")
    rows = {name: row for row, name in enumerate(world.table.ids)}
    for feature in found["features"]:
        for example in feature["examples"]:
            of_example = tokens[rows[example["example"]]][:, feature["feature"]]
            assert example["start"] + len(example["tokens"]) == len(of_example)
            close(example["value"], of_example[-1])


def test_a_threshold_is_weighed_and_values_are_shown(world: Made, tmp_path: Path) -> None:
    path = world.probe("marked", "mean", [0.05])
    found = world.write(tmp_path / "threshold.json", cell_files=[path])
    assert found["probe"]["threshold"] == 0.05
    values = {value for one in found["predictions"] for _, value, _ in one["contributions"]}
    assert min(values) >= 0.05
    assert len(values) > 5
    # All that reach the threshold weigh the same.
    parts: dict[tuple[int, int, int], set[float]] = {}
    for one in found["predictions"]:
        for feature, _, part in one["contributions"]:
            parts.setdefault((one["verdicts"]["sae"][0], one["against"], feature), set()).add(part)
    assert all(len(of_pair) == 1 for of_pair in parts.values())


# --- failures ------------------------------------------------------------------------------------------------------


def failed(found: dict[str, Any]) -> str:
    assert found["probe"] is None
    assert found["features"] == found["predictions"] == []
    assert found["task"]["labels"] == LABELS
    return str(found["failed"])


def test_a_task_without_a_probe_of_an_sae_says_why(world: Made, tmp_path: Path) -> None:
    without = world.write(tmp_path / "none.json", cell_files=world.files[-2:])
    assert failed(without) == "No SAE of this model was probed with a logistic regression."
    others = world.probe("other", "max", [None], search={"thresholds": [None], **means_alone()})
    assert "No SAE of this model" in failed(world.write(tmp_path / "none.json", cell_files=[others]))


def means_alone() -> dict[str, Any]:
    empty: dict[str, Any] = {"train_shares": [], "label_noise": [], "imbalance": [], "shuffled": False}
    return {
        "classifiers": ["means"],
        "curve_poolings": None,
        "sparse_k": [],
        "l1_penalties": [0.5],
        "alone": False,
        "regimes": empty,
    }


def test_the_published_protocol_alone_lays_nothing_out(world: Made, tmp_path: Path) -> None:
    path = world.probe("other", "top-3", [None], protocols=["paper"])
    assert failed(world.write(tmp_path / "paper.json", cell_files=[path])).startswith("The strict protocol did not run")


def test_a_first_split_without_a_probe_is_a_failure_with_its_reason(world: Made, tmp_path: Path) -> None:
    labels = np.array(["garden", "harbour", *["kitchen"] * 94], dtype=object)
    table = world.table
    lonely = Made(world.results, type(table)(**{**vars(table), "labels": labels}))
    path = lonely.probe("other", "max", [None])
    told = failed(world.write(tmp_path / "failed.json", cell_files=[path]))
    assert told.startswith("No probe of an SAE came out on the first split (seed 0: ")
    assert "too few examples or groups" in told


def test_a_part_of_one_class_and_a_dataset_of_one_part_are_no_trouble(world: Made, tmp_path: Path) -> None:
    path = world.results / "datasets/reviews.parquet"
    record = path.with_suffix(".json")
    before, table = {file: file.read_bytes() for file in (path, record)}, tables.pq.read_table(path)
    try:
        for name, parts in {"one class": world.table.labels == "garden", "one part": np.zeros(96, bool)}.items():
            subsets = np.where(parts, "special", "usual").tolist()
            changed = table.set_column(3, table.schema.field("subset"), [subsets])
            tables.pq.write_table(changed, path)
            write_json(record, read_json(record) | {"sha256": examples.digest(changed.to_batches())})
            found = world.write(tmp_path / "parts.json")
            assert found["task"]["subsets"] == (["special", "usual"] if name == "one class" else [])
            first = found["features"][0]
            if name == "one class":
                assert first["rates"]["subset"] == [0, 0.5]
            else:
                assert first["rates"]["subset"] == []
                assert {one["subset"] for one in [*first["examples"], *found["predictions"]]} == {None}
    finally:
        for file, content in before.items():
            file.write_bytes(content)


def test_a_link_is_what_the_saes_own_config_says(world: Made, tmp_path: Path) -> None:
    path = world.results / "saes/marked/cfg.json"
    record = path.with_name("revision.json")
    before = {file: file.read_bytes() for file in (path, record)}
    config = read_json(path)
    links = []
    try:
        for name in ("gemma-2-2b/12-gemmascope-res-16k", None, "javascript:alert(1)//x", 7):
            path.write_text(json.dumps({**config, "metadata": {**config["metadata"], "neuronpedia_id": name}}))
            write_record(path.parent, {}, None, {})
            links.append(world.write(tmp_path / "linked.json")["features"][0]["link"])
    finally:
        for file, content in before.items():
            file.write_bytes(content)
    assert links == [f"https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/{PLANTED}", None, None, None]
