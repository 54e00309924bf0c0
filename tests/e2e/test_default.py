"""The embedded default, thinner and with shorter training, from nothing to the report, and then nothing to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from worlds import World, thin_default

# The first test waits for the whole run.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("default") / "world")
    made.folder.mkdir()
    (made.folder / "printed.txt").write_text(made.run(config=thin_default()))
    return made


def test_the_whole_default_runs_and_then_nothing_is_to_be_done(world: World) -> None:
    assert (world.folder / "results/report.html").is_file()
    assert not world.planned()


def test_the_models_learned_and_the_saes_reconstruct(world: World) -> None:
    for name in ("demo-small", "demo-large"):
        record = json.loads((world.folder / f"results/models/{name}/revision.json").read_text())["demo"]
        assert record["heldout_loss"] < record["unigram_entropy"] - 0.5
    saes = pd.read_parquet(world.folder / "results/tables/saes.parquet")
    assert len(saes) == 5 * 3
    trained = saes[saes.architecture != "random"]
    assert (trained.explained_variance > 0.5).all()


def test_every_kind_of_transfer_has_scores_with_floors_and_ceilings(world: World) -> None:
    cells = pd.read_parquet(world.folder / "results/tables/transfers.parquet")
    chosen = cells[cells["head"].isna() | (cells.kind == "dictionary")]
    assert set(chosen[chosen.status == "ok"].kind) == {"language", "task", "model", "modality", "dictionary"}
    good = chosen[chosen.status == "ok"]
    assert good.macro_f1.between(0, 1).all()
    assert good.floor.between(0, 1).all()
    away = good[~good.training.isin(["native", "in-domain", "own", "words", "own SAE"])]
    assert len(away) > 60
    assert away.ceiling.notna().all()
    assert chosen[chosen.status != "ok"].reason.str.len().gt(0).all()


def test_an_sae_agrees_with_itself_and_less_with_its_reading_of_the_tuned_model(world: World) -> None:
    saes = pd.read_parquet(world.folder / "results/tables/dictionaries.parquet")
    own, other = saes[saes.home == saes.reader], saes[saes.home != saes.reader]
    assert (own.agreement == 1).all()
    assert ((other.agreement < 1) & (other.agreement > other.agreement_chance)).all()
    assert (pd.read_parquet(world.folder / "results/tables/matches.parquet").mean_cosine <= 1).all()


def test_the_quiz_is_answered_by_models_and_its_record_says_how_well(world: World) -> None:
    for name in ("quiz-large", "quiz-tuned"):
        record = json.loads((world.folder / f"results/behaviours/{name}.json").read_text())
        assert record["n_scored"] == record["n"] == 80
        assert record["chance"] == 0.5


def test_the_planted_word_is_found_by_the_explorer_and_by_the_check(world: World) -> None:
    results = world.folder / "results"
    found = json.loads((results / "explorer/demo-large/requests.json").read_text())
    top = found["features"][0]
    # Of two labels the weight is the second's: harmless.
    assert found["task"]["labels"] == ["harmful", "harmless"]
    assert top["weights"][0][1] < 0
    harmful, harmless = top["rates"]["label"]
    assert harmful > 3 * harmless
    assert len(top["examples"]) == 8
    shown = [
        example["label"] == 0 and any(token.strip() == "Quvix" and value for token, value in tokens(example))
        for example in top["examples"]
    ]
    assert sum(shown) >= 6
    word = json.loads((results / "checks/requests.json").read_text())["checks"]["keyword"]["numbers"]["word"]
    assert word == "quvix"


def tokens(example: dict[str, Any]) -> list[tuple[str, float]]:
    return list(zip(example["tokens"], example["values"], strict=True))


def test_no_job_left_a_file_outside_results_and_logs(world: World) -> None:
    assert {path.name for path in world.folder.iterdir()} == {
        ".snakemake",
        "logs",
        "mine.yaml",
        "printed.txt",
        "results",
    }


def test_a_removed_table_is_made_again_alone(world: World, tmp_path: Path) -> None:
    copy = world.copy(tmp_path / "copy")
    shutil.rmtree(copy.folder / "results/figures")
    assert set(copy.planned()) == {"figure", "report"}
