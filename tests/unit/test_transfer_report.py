"""What the report and the findings say of transfers, held to the tables."""

from dataclasses import replace
from pathlib import Path

import fakes_transfers as fakes
import pytest
from fakes_tables import world as tables

from tessera import transfer_findings
from tessera.report import citation, render
from tessera.report import transfers as sections
from tessera.transfer_results import Transfers, away, whole


@pytest.fixture(scope="module")
def world() -> Transfers:
    return fakes.world()


def test_the_overview_has_a_row_for_each_way_of_training_and_input(world: Transfers) -> None:
    rows = sections.overview(world)
    cells = whole(world)
    assert len(rows) == len(cells.groupby(["transfer", "training", "arm"]))
    assert list(dict.fromkeys(row["transfer"] for row in rows)) == [
        entry["title"] for entry in world.titles["transfers"].values() if entry["kind"] != "dictionary"
    ]
    (crossed,) = (
        row
        for row in rows
        if row["transfer"] == "Requests" and row["training"] == "another language" and row["arm"] == "SAE features"
    )
    of_row = cells[(cells.transfer == "languages") & (cells.training == "transferred") & (cells.arm == "sae")]
    assert crossed["score"]["value"] == f"{of_row.macro_f1.median():.3f}"
    assert crossed["score"]["interval"] == f"{of_row.macro_f1.min():.3f} to {of_row.macro_f1.max():.3f}"
    assert crossed["above"] == f"{(of_row.low > of_row.floor).sum()} of {len(of_row)}"


def test_a_failed_cell_is_counted_and_stands_with_its_reason(world: Transfers) -> None:
    broken = fakes.with_failed(
        world, "no <label> there", lambda cells: (cells.transfer == "tasks") & (cells.source == "spam")
    )
    rows = [row for row in sections.overview(broken) if row["transfer"] == "Bad words"]
    assert any("failed" in row["cells"] for row in rows)
    assert {row["reason"] for row in sections.failed(broken)} == {"no <label> there"}
    assert {cell["score"]["reason"] for cell in sections.every_cell(broken) if cell["score"]["state"] == "failed"} == {
        "no <label> there"
    }


def page(transfers: Transfers | None) -> str:
    records = {"datasets": {}, "checks": {}, "models": {}, "saes": {}, "behaviours": {}}
    records["behaviours"] = {
        "quiz-large": {
            "identity": {"entry": {"model": "demo-large", "dataset": "hate"}},
            "n": 10,
            "n_scored": 9,
            "accuracy": 2 / 3,
            "chance": 0.5,
            "left_out": {"too <long>": {"count": 1, "examples": ["x"]}},
        }
    }
    probes = {"protocols": ["strict"], "strict": {"seeds": 5, "test_size": 0.2, "inner_folds": 3}}
    probes |= {"sae_poolings": ["sum"], "hidden_poolings": ["mean"], "thresholds": [None]}
    cited = citation.read(Path(__file__).parents[2] / "CITATION.cff")
    return render(
        tables(), findings=[], figures=[], records=records, probes=probes, transfers=transfers, citation=cited
    )


def test_the_page_has_transfers_where_there_are_any_and_escapes_their_words(world: Transfers) -> None:
    broken = fakes.with_failed(world, "no <label> there", lambda cells: cells.source == "spam")
    found = page(broken)
    assert 'id="transfer"' in found
    assert "no &lt;label&gt; there" in found
    assert "too &lt;long&gt;" in found
    assert "<label>" not in found
    assert "66.7%" in found
    assert 'id="transfer"' not in page(None)


def test_the_finding_says_the_median_share_and_its_numbers_bear_it_out(world: Transfers) -> None:
    found = transfer_findings.transfer(world)
    cells = away(world)
    for entry in found["numbers"]["transfers"]:
        for told in entry["inputs"]:
            here = cells[
                (cells.transfer == entry["transfer"])
                & (cells.training == entry["training"])
                & (cells.arm == told["arm"])
            ]
            assert told["closed"] == pytest.approx(here.closed.median())
            share = f"{told['closed']:.0%}".replace("-", "\N{MINUS SIGN}")
            assert f"{transfer_findings.INPUTS[told['arm']]} {share}" in " ".join(found["points"])
    assert found["points"][0].startswith("Requests, in another language: SAE features ")
    assert found["title"].startswith("Away from home SAE features close more of the gap than hidden states in")


def test_without_a_gap_no_share_is_said(world: Transfers) -> None:
    flat = replace(world, transfers=world.transfers.assign(closed=float("nan")))
    found = transfer_findings.transfer(flat)
    assert all(point.endswith("no cell has a gap to close") for point in found["points"])
    assert found["title"] == "How far it transfers"
    nothing = transfer_findings.transfer(replace(fakes.empty(), titles=world.titles))
    assert nothing["sentence"] == "This cannot be told: no cell has a score."
