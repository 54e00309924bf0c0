"""The profiles: what a user edits in one place reaches every job, and nothing names a rule that is not there."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
import yte
from worlds import ROOT

PROFILE = ROOT / "profiles/slurm/config.yaml"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs lie in this folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def read(**edits: str) -> dict[str, Any]:
    """The profile for a cluster as Snakemake reads it, after some lines were edited."""
    text = PROFILE.read_text()
    for key, value in edits.items():
        text, count = re.subn(rf"^(  {key}: )\S+", rf"\g<1>{value}", text, flags=re.MULTILINE)
        assert count == 1, key
    found: dict[str, Any] = yte.process_yaml(io.StringIO(text), require_use_yte=True)
    return found


def test_unedited_it_leaves_account_and_partition_to_the_cluster(programs: Path) -> None:
    text = yaml.safe_dump(read())
    assert "slurm_account" not in text
    assert "slurm_partition" not in text
    assert read()["set-resources"]["capture"]["gpu"] == 1


def test_what_is_edited_reaches_the_jobs(programs: Path) -> None:
    found = read(account="physics", partition="short", gpu_partition="a100", gpus="0")
    assert found["default-resources"]["slurm_account"] == "physics"
    assert found["default-resources"]["slurm_partition"] == "short"
    cards = {rule: asked.get("slurm_partition") for rule, asked in found["set-resources"].items() if "gpu" in asked}
    assert cards == {"capture": "a100", "behaviour": "a100"}
    assert {asked["gpu"] for asked in found["set-resources"].values() if "gpu" in asked} == {0}


@pytest.mark.parametrize(("answer", "expected"), [(0, True), (1, None)])
def test_efficiency_is_reported_where_slurm_keeps_a_history(programs: Path, answer: int, expected: bool | None) -> None:
    assert "slurm-efficiency-report" not in read()
    (programs / "sacct").write_text(f"#!/bin/sh\nexit {answer}\n")
    (programs / "sacct").chmod(0o755)
    assert read().get("slurm-efficiency-report") is expected


def test_its_rules_are_there_and_those_that_take_a_card_are_those_of_the_workflow(programs: Path) -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n((?:(?:    .*)?\n)+)", text, re.MULTILINE))
    found = read()
    assert set(found["set-resources"]) | set(found["groups"]) <= set(rules)
    assert {rule for rule, asked in found["set-resources"].items() if "gpu" in asked} == {
        rule for rule, body in rules.items() if "gpu=" in body
    }
    # A group is named by wildcards that all of its jobs have.
    for rule, group in found["groups"].items():
        assert set(re.findall(r"{(\w+)}", group)) <= set(re.findall(r"{(\w+)}", rules[rule]))
        assert group in found["group-components"]


def test_a_job_that_is_tried_again_asks_for_more(programs: Path) -> None:
    found = read()
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    here = re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, re.MULTILINE)
    rules = re.findall(r"^rule (\w+):\n(?:(?:    .*)?\n)*?    script:\n", text, re.MULTILINE)
    # What a rule asks for itself counts for more than the default, and stays the same.
    assert set(found["set-resources"]) == set(rules) - set(re.findall(r"\w+", "".join(here)))
    for asked in [found["default-resources"], *found["set-resources"].values()]:
        assert asked["mem_mb"].startswith("attempt * ")
        assert asked["runtime"].startswith("attempt * ")
    assert found["retries"] > 0
