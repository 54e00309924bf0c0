"""The published study in miniature, from a Hub on loopback to all figures and tables, by the commands of the README.

`paper_made` says what is shrunk, and which repeats of a kind are left out; nothing that the study does is. What is fetched
is fetched by one command and all else done by the next, so that whatever that one asks of the Hub shows. The numbers are
measurements of random models: what is tested is that every number, figure and verdict is there, and where it may not be, why.
"""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import paper_made
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from hub_served import REVISION, Asked, Hub
from paper_made import TOKEN
from worlds import ROOT, World

from tessera import claims, config_file, figure_names
from tessera.reference import Reference, load
from tessera.scoreboard import COMPARABLE, HIGHER, LOWER, MATCHES, NOT_COMPARABLE
from tessera.study import Study

# The first test waits for the whole run.
pytestmark = pytest.mark.timeout(1800)

FORMATS = (".svg", ".pdf", ".png", ".csv")
# What fetches last: a model is fetched for its SAEs, and what stops at it would leave them out.
FETCHING = ("dataset", "sae")
SETTINGS = ["layer", "width", "pooling", "threshold", "classifier"]


@dataclass
class Run:
    """The folder after the run, what the Hub was asked by either command, and all that was printed."""

    world: World
    environment: dict[str, str]
    fetching: list[Asked]
    computing: list[Asked]
    printed: str

    @property
    def results(self) -> Path:
        return self.world.folder / "results"

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.results / f"tables/{name}.parquet")

    def outputs(self) -> list[Path]:
        """Every file that the target has, as Snakemake itself counts them."""
        listed = self.world.run("paper", "--summary", environment=self.environment).splitlines()
        (head,) = [place for place, line in enumerate(listed) if line.startswith("output_file\t")]
        return [self.world.folder / line.split("\t")[0] for line in listed[head + 1 :] if "\t" in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("paper")
    hub = Hub({})
    paper_made.serve(hub, folder / "made")
    settings = paper_made.environment(hub, folder)
    world = World(folder / "world")
    world.folder.mkdir()
    config = world.folder / "mine.yaml"
    config.write_text(yaml.safe_dump(paper_made.small_study(), sort_keys=False))
    pinning = [sys.executable, "-m", "tessera.pins", config.name]
    pinned = subprocess.run(
        pinning,
        cwd=world.folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    with hub.playing() as fetching:
        printed = world.run("paper", "--until", *FETCHING, environment=settings)
    with hub.playing() as computing:
        printed += world.run("paper", environment=settings)
    hub.stop()
    return Run(world, settings, fetching, computing, pinned.stdout + pinned.stderr + printed)


@pytest.fixture(scope="module")
def study(run: Run) -> Study:
    return Study(config_file.parse(yaml.safe_load((run.world.folder / "mine.yaml").read_text())))


@pytest.fixture(scope="module")
def published() -> Reference:
    return load(ROOT / "resources/reference")


# --- the miniature -------------------------------------------------------------------------------------------------


def test_the_miniature_is_the_study_but_for_sizes_and_repeats() -> None:
    small, study = paper_made.small_study(), paper_made.study()
    left_out = paper_made.LEFT_OUT
    assert list(small) == [*study, "capture", "explorer"]
    assert small["models"] == study["models"]
    assert list(small["saes"]) == list(study["saes"])
    assert [entry | {"width": 0} for entry in small["saes"].values()] == [
        entry | {"width": 0} for entry in study["saes"].values()
    ]
    assert small["datasets"].keys() | left_out.keys() == study["datasets"].keys()
    for name, entry in small["datasets"].items():
        assert entry | {"max_examples": 0} == study["datasets"][name] | {"max_examples": 0}
    for name, entry in small["transfers"].items():
        same = {key: value for key, value in entry.items() if key not in ("folds", "published")}
        assert same.items() <= study["transfers"][name].items()
    assert small["transfers"].keys() == study["transfers"].keys()
    shrunk = ("datasets", "alone", "strict", "sparse_k")
    kept = {key: value for key, value in small["probes"].items() if key not in shrunk}
    assert kept == {key: value for key, value in study["probes"].items() if key not in shrunk}


def test_each_kind_of_source_is_there_still() -> None:
    """A kind is which keys a dataset has, and what of its text: a translation, an image, a behaviour of a model."""

    def kinds(config: dict[str, Any]) -> set[tuple[Any, ...]]:
        behaviours = config["transfers"]["behaviours"]["published"]
        return {
            (
                "image" in entry,
                entry["source"].get("subset"),
                entry.get("text") == "translation" and "translation",
                (entry["text"], entry["label"]) if name in behaviours else None,
                "max_examples" in entry,
            )
            for name, entry in config["datasets"].items()
        }

    assert kinds(paper_made.study()) == kinds(paper_made.small_study())


# --- the run -------------------------------------------------------------------------------------------------------


def test_the_study_runs_to_its_end_and_then_nothing_is_to_be_done(run: Run) -> None:
    assert "100%" in run.printed
    assert not run.world.planned(target="paper")


def test_only_jobs_that_fetch_ask_the_hub_and_each_repository_is_read_at_its_commit(run: Run, study: Study) -> None:
    assert run.computing == []
    read = {
        asked.path.split("/resolve/")[0].removeprefix("/datasets")
        for asked in run.fetching
        if "/resolve/" in asked.path
    }
    named = {f"/{source['hub']}" for of in study.sources().values() for source in of.values()}
    scopes = {f"/{release['repo_id']}" for release in paper_made.releases().values()}
    assert read == named | scopes
    commits = {asked.path.split("/resolve/")[1].split("/")[0] for asked in run.fetching if "/resolve/" in asked.path}
    # sae-lens asks for the newest.
    assert commits <= {REVISION, "main"}


def test_gated_models_were_read_with_the_token(run: Run) -> None:
    for model in paper_made.study()["models"].values():
        weights = [asked for asked in run.fetching if f"/{model['source']['hub']}/resolve/" in asked.path]
        assert {asked.token for asked in weights} == {f"Bearer {TOKEN}"}


def test_the_token_is_in_no_file_and_was_not_printed(run: Run) -> None:
    assert TOKEN not in run.printed
    files = [path for path in run.world.folder.rglob("*") if path.is_file()]
    assert {path.relative_to(run.world.folder).parts[0] for path in files} >= {"results", "logs", ".snakemake"}
    assert not [path for path in files if TOKEN.encode() in path.read_bytes() or TOKEN in path.name]
    packed = [path for path in files if path.suffix == ".parquet"]
    assert packed
    assert not [path for path in packed if any(TOKEN in text for text in texts_in(path))]


def texts_in(path: Path) -> Iterator[str]:
    """The texts of a compressed table, those of a column in one."""
    for column in pq.ParquetFile(path).schema_arrow:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            (values,) = pq.read_table(path, columns=[column.name]).columns
            yield " ".join(pc.unique(values).drop_null().to_pylist())


def test_no_rule_asks_for_more_than_one_card() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    asked = re.findall(r"^ {8}(gpus?\w*) *= *(.+),$", rules, re.MULTILINE)
    assert set(asked) == {("gpu", "1")}
    assert len(asked) > 1


# --- what it leaves ------------------------------------------------------------------------------------------------


def test_every_file_of_the_target_is_there_and_holds_something(run: Run) -> None:
    outputs = run.outputs()
    assert {path.suffix for path in outputs} >= {".html", ".parquet", ".json", *FORMATS}
    assert not [path for path in outputs if not path.is_file() or not path.stat().st_size]


def test_every_figure_is_drawn_in_every_format_and_its_numbers_have_rows(run: Run, study: Study) -> None:
    drawn = {path.stem for path in (run.results / "figures").iterdir()}
    wanted = {*names_of(study), *figure_names.transfer_figures(study.titles()["transfers"]), *paper_figures(study)}
    assert drawn == wanted
    assert not [
        name for name in drawn for kind in FORMATS if not (run.results / f"figures/{name}{kind}").stat().st_size
    ]
    assert not [name for name in drawn if pd.read_csv(run.results / f"figures/{name}.csv").empty]


def names_of(study: Study) -> list[str]:
    assert study.config.probes.sparse_k
    return ["arms", "layers", "poolings", "curves", "saes"]


def paper_figures(study: Study) -> dict[str, figure_names.PaperFigure]:
    return figure_names.paper_figures(study.probed_widths(), study.pictures())


def test_every_table_has_rows_and_as_many_as_csv(run: Run) -> None:
    tables = sorted(path.stem for path in (run.results / "tables").glob("*.parquet"))
    assert len(tables) > 12
    assert not [name for name in tables if run.table(name).empty]
    for name in tables:
        assert len(pd.read_csv(run.results / f"tables/{name}.csv", low_memory=False)) == len(run.table(name))


def test_only_a_tenth_of_a_few_examples_is_too_little_to_train_on(run: Run) -> None:
    cells, moved = run.table("cells"), run.table("transfers")
    assert (cells["status"] == "ok").all()
    lost = moved[moved["status"] != "ok"]
    assert set(lost["share"]) == {0.1}
    assert lost["reason"].str.contains("too few examples").all()


def test_the_page_names_every_figure_of_the_authors_with_one_of_ours(run: Run, study: Study) -> None:
    page = (run.results / "paper.html").read_text(encoding="utf-8")
    sections = re.split(r'<section class="page" id="study-\d+"', page)[1:]
    patterns = figure_names.patterns(names_of(study), study.titles()["transfers"], paper_figures(study))
    with (ROOT / "resources/reference/figures_index.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(sections) == len(rows)
    for row, section in zip(rows, sections, strict=True):
        assert row["what"][1:].replace("&", "&amp;") in section
        for pattern in row["ours"].split():
            ours = [name for name, found in patterns.items() if found == pattern]
            assert ours
            assert all(f'id="figure-{name}"' in section or f'href="#figure-{name}"' in section for name in ours), (
                pattern
            )
    assert page.count('id="figure-') == len(
        {
            name
            for row in rows
            for pattern in row["ours"].split()
            for name, found in patterns.items()
            if found == pattern
        }
    )
    assert (run.results / "report.html").stat().st_size > 100_000


# --- beside the published numbers ----------------------------------------------------------------------------------


def test_published_cells_stand_beside_ours_or_the_board_says_why_not(run: Run, published: Reference) -> None:
    board = run.table("scoreboard")
    assert len(board) == 2 * len(published.cells)
    same = board[board["status"] == COMPARABLE]
    assert set(same["protocol"]) == {"paper", "strict"}
    assert set(same["our_dataset"]) == {"jailbreak"}
    assert set(same["arm"]) == {"sae", "hidden"}
    assert same.loc[same["arm"] == "sae", "width"].isin([16384, 65536]).all()
    assert same[["published", "ours", "difference", "reach"]].notna().all(axis=None)
    assert set(same["verdict"]) <= {MATCHES, HIGHER, LOWER}
    assert (same["ours"] - same["published"] - same["difference"]).abs().max() < 1e-9
    other = board[board["status"] == NOT_COMPARABLE]
    assert other["reason"].str.len().gt(0).all()
    assert len(same) + len(other) == len(board)


def test_a_published_score_stands_beside_the_very_cell_that_it_is_of(run: Run) -> None:
    board, cells = run.table("scoreboard"), run.table("cells")
    same = board[(board["status"] == COMPARABLE) & (board["protocol"] == "paper")]
    for row in same.itertuples():
        here = cells[
            (cells["protocol"] == "paper")
            & (cells["regime"] == "full")
            & (cells["subset"] == "all")
            & cells["k"].isna()
        ]
        here = here[
            (here["dataset"] == row.our_dataset) & (here["model"] == row.our_model) & (here["head"] == row.our_head)
        ]
        for name in SETTINGS:
            value = getattr(row, name)
            here = here[here[name].isna() if pd.isna(value) else here[name] == value]
        assert here["macro_f1"].tolist() == [pytest.approx(row.ours)]
    assert len(same) > 10


REASONS = {
    "massive-scenario": "the run has no cells of the sae arm of this model on this dataset",
    "toxicity": r"ours is tested on 6 examples, the published score on about 1,000",
    "cifar100": r"ours is tested on 12 examples, the published score on about 2,000",
    "pubmedqa-9b": "the run scores it as a transfer, which chooses the pooling itself",
    "sentiment": "the run has no cells of german by itself",
    "reject-prompts": "no dataset of the run is AIM-Harvard/reject_prompts",
}


@pytest.mark.parametrize("dataset", REASONS)
def test_a_cell_that_is_not_compared_has_the_reason_that_is_so(run: Run, dataset: str) -> None:
    hub = paper_made.study()["datasets"][dataset]["source"]["hub"]
    board = run.table("scoreboard")
    assert REASONS[dataset] in set(board.loc[board["dataset"] == hub, "reason"])


def test_each_of_the_six_findings_is_judged_on_both_sides_with_its_reason(run: Run) -> None:
    found = run.table("claims")
    whole = found[found["part"] == ""]
    places = set(whole[["claim", "protocol", "side"]].itertuples(index=False, name=None))
    assert places == {
        (claim.name, protocol, side)
        for claim in claims.CLAIMS
        for protocol in ("paper", "strict")
        for side in ("published", "ours")
    }
    assert len(claims.CLAIMS) == 6
    assert set(found["verdict"]) <= {claims.HOLDS, claims.FAILS, claims.OPEN}
    told = whole[whole["verdict"] != claims.HOLDS]
    assert told["reason"].str.len().gt(0).all()
    page = (run.results / "report.html").read_text(encoding="utf-8")
    assert all(claim.title in page for claim in claims.CLAIMS)
