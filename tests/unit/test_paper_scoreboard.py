"""Which published cells the study's config has a cell of its own for, and why it has none for the others.

Nothing is computed: the cells that the config's probes would have are listed, as if each had gone well on as many examples
as `snakemake plan` counts with.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tessera import config_file, reference, scoreboard
from tessera.costs import Costs, Facts
from tessera.regimes import ALONE, FULL
from tessera.scoreboard import COMPARABLE, Run
from tessera.study import Study

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "resources/reference"
KNOWN = reference.load(REFERENCE)
NUMBERS = ["layer", "width", "threshold", "k"]
# The share of a dataset that the study tests on.
TESTED = 0.2


def cells_of(study: Study) -> Iterator[dict[str, Any]]:
    """The cells of hidden states and SAEs that a config's probes have under the paper's protocol."""
    costs = Costs(study, Facts(REFERENCE))
    classifiers = study.config.probes.classifiers
    for model, dataset in study.captures:
        if dataset not in study.probed:
            continue
        examples, parts = costs.examples(dataset), parts_of(study, dataset)
        tested = float("nan") if examples.missing else examples.value * TESTED
        for head in study.probed_heads(model):
            found = study.probe_params(model, head.id)
            called = {name: found[name] for name in ("arm", "layer", "width")}
            for pooling, threshold, classifier in product(found["poolings"], found["thresholds"], classifiers):
                chosen = {"pooling": pooling, "threshold": threshold, "classifier": classifier}
                place = called | chosen | {"model": model, "dataset": dataset, "head": head.id}
                yield place | {"regime": FULL, "subset": "all", "n_test": tested}
                for regime, subset in product(regimes_of(study, dataset), parts):
                    yield place | {"regime": regime, "subset": subset, "n_test": tested / len(parts)}


def parts_of(study: Study, dataset: str) -> list[str]:
    """The subsets of a dataset of the Hub."""
    source = study.plain["datasets"][dataset]["source"]
    return source[f"{source['subset']}s"] if source["subset"] else []


def regimes_of(study: Study, dataset: str) -> list[str]:
    """What the cells of a dataset's subsets are trained on."""
    return [FULL, ALONE] if study.alone(dataset)["alone"] else [FULL]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pd.DataFrame]:
    raw = yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patched:
        # Where there are no results.
        patched.chdir(tmp_path_factory.mktemp("empty"))
        study = Study(config_file.parse(raw))
        same = {"k": None, "protocol": "paper", "seed": 42, "status": "ok", "reason": "", "macro_f1": 0.5}
        cells = pd.DataFrame([cell | same | {"validation": 0.5, "n_classes": 2} for cell in cells_of(study)])
        run = Run(cells.astype(dict.fromkeys(NUMBERS, "float64")), None, study.sources())
        yield pd.DataFrame(list(scoreboard.compared(run, KNOWN)))


def test_every_published_cell_whose_pooling_is_known_has_its_like(board: pd.DataFrame) -> None:
    others = board[board["status"] != COMPARABLE]
    early = others["experiment"] == "early_pipeline_nov2024"
    assert others[early]["reason"].unique().tolist() == ["the published table does not say how tokens were pooled"]
    assert others[~early].empty, others[~early][["dataset", "part", "model", "reason"]].drop_duplicates()
    assert (len(board), int(early.sum())) == (2441, 105)


def test_each_language_is_compared_with_probes_of_that_language_alone(board: pd.DataFrame) -> None:
    languages = board[board["experiment"] == "multilingual_within_language"]
    assert len(languages) == 1294
    assert (languages["status"] == COMPARABLE).all()
    assert set(languages["our_dataset"]) == {"toxicity", "toxicity-paired", "sentiment"}


def test_no_dataset_with_published_cells_is_left_out_of_the_probes() -> None:
    config = config_file.parse(yaml.safe_load((ROOT / "config/paper.yaml").read_text(encoding="utf-8")))
    read = {config.datasets[name].source.hub for name in config.probes.datasets or []}
    assert set(KNOWN.cells["dataset"]) <= read
