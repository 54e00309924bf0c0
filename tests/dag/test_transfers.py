"""Transfers on a user's own inputs: an entry in the config is one job, and it depends on what it reads and nothing else."""

import copy
import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from worlds import World, own_config

OWN = {"folds": 2, "text": ["tfidf-word"], "sae_poolings": ["sum"], "hidden_poolings": ["mean"]}
TRANSFERS: dict[str, Any] = {
    "parts": {"kind": "language", "dataset": "reviews", "model": "mine", "selections": ["none", "top-4", "l1"], **OWN},
    "answers": {"kind": "model", "behaviours": ["guesses", "says"], "models": ["mine"], **OWN},
}
BEHAVIOURS: dict[str, Any] = {
    "guesses": {
        "rule": "likelihood",
        "dataset": "questions",
        "model": "mine",
        "options": ["{first}", "{second}"],
        "answer": "{right}",
    },
    "says": {"rule": "generation", "dataset": "questions", "model": "mine", "answers": ["{right}"], "max_tokens": 3},
}


def write_questions(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["what", "first", "second", "right"])
        things = ["boat", "oven", "leaf", "rope", "salt", "seed", "tide", "root", "mast", "spoon"]
        for place in range(60):
            first, second = things[place % 10], things[(place * 7 + 3) % 10] + " it"
            writer.writerow([f"number {place} of {things[-place % 10]}", first, second, first if place % 2 else second])


def transferring() -> dict[str, Any]:
    config = copy.deepcopy(own_config())
    config["datasets"]["questions"] = {
        "source": {"file": "data/questions.csv"},
        "text": "Which is {what}? It is",
        "label": None,
        "columns": ["first", "second", "right"],
    }
    return config | {"behaviours": copy.deepcopy(BEHAVIOURS), "transfers": copy.deepcopy(TRANSFERS)}


@pytest.fixture(scope="module")
def world(finished_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The finished world after a second run, to whose config transfers were added."""
    made = finished_world.copy(tmp_path_factory.mktemp("transfers") / "world")
    write_questions(made.folder / "data/questions.csv")
    planned = made.planned(transferring())
    assert planned == Counter(
        dataset=1,
        capture=1,
        behaviour=2,
        transfer=2,
        transfer_tables=1,
        scoreboard=1,
        figure=3,
        findings=1,
        report=1,
        explore=1,  # whose rates are told of every dataset that the model reads
    )
    made.run(config=transferring())
    return made


def test_adding_transfers_computes_them_and_leaves_every_probe(world: World) -> None:
    assert world.planned(transferring()) == Counter()
    cells = pd.read_parquet(world.folder / "results/tables/transfers.parquet")
    parts = cells[cells.transfer == "parts"]
    assert set(parts.status) == {"ok"}
    assert set(zip(parts.source, parts.target, strict=True)) == {
        (a, b) for a in ("north", "south") for b in ("north", "south")
    }
    assert set(parts[parts.arm == "sae"].selection) == {"none", "top-4", "l1"}
    assert set(parts[parts["head"].notna()]["head"]) == {"mine-l1", "mine-l3", "layer-1"}
    words = parts[parts.arm == "tfidf"]
    assert (words.macro_f1 > 0.6).all()


def test_what_a_model_answered_is_told_and_predicted_or_said_not_to_be(world: World) -> None:
    table = pd.read_parquet(world.folder / "results/behaviours/guesses.parquet")
    assert len(table) == 60
    assert table.prompt[0] == "Which is number 0 of boat? It is"
    assert table.right.nunique() == 2
    cells = pd.read_parquet(world.folder / "results/tables/transfers.parquet")
    guessed = cells[(cells.target == "guesses") & cells["head"].isna()]
    assert {"sae", "hidden", "tfidf", "confidence"} <= set(guessed.arm)
    # A random model never says the word, so there is one outcome, and that is a record.
    said = cells[cells.target == "says"]
    assert set(said.reason) == {"all its examples are 'wrong'"}
    page = (world.folder / "results/report.html").read_text()
    assert 'id="transfer"' in page
    assert "all its examples are &#39;wrong&#39;" in page


def test_a_transfer_more_is_one_job(world: World) -> None:
    config = transferring()
    config["transfers"]["more"] = {**TRANSFERS["parts"], "selections": ["none"]}
    assert world.planned(config) == Counter(transfer=1, transfer_tables=1, scoreboard=1, figure=5, findings=1, report=1)


def test_changed_settings_of_a_transfer_rerun_that_alone(world: World) -> None:
    config = transferring()
    config["transfers"]["parts"]["folds"] = 3
    assert world.planned(config) == Counter(transfer=1, transfer_tables=1, scoreboard=1, figure=3, findings=1, report=1)


def test_a_changed_title_computes_nothing(world: World) -> None:
    config = transferring()
    config["transfers"]["parts"]["title"] = "Between parts"
    assert world.planned(config) == Counter(figure=3, findings=1, report=1)


def test_a_changed_behaviour_is_asked_again(world: World) -> None:
    config = transferring()
    config["behaviours"]["guesses"]["per"] = "token"
    assert world.planned(config) == Counter(
        behaviour=1, transfer=1, transfer_tables=1, scoreboard=1, figure=3, findings=1, report=1
    )


def test_an_sae_more_is_an_input_more_and_the_others_are_kept(world: World, tmp_path: Path) -> None:
    copied = world.copy(tmp_path / "copy")
    config = transferring()
    config["saes"]["mine-l2"] = {"source": {"folder": "data/sae-l2"}, "model": "mine", "layer": 2, "width": 96}
    answers = copied.folder / "results/transfer/parts/answers"
    before = {path.name: path.stat().st_mtime_ns for path in answers.iterdir()}
    copied.run("results/transfer/parts/cells.parquet", config=config)
    after = {path.name: path.stat().st_mtime_ns for path in answers.iterdir()}
    assert {name: after[name] for name in before} == before
    assert sorted(after.keys() - before.keys()) == ["mine.mine-l2.sae.sum.parquet"]
