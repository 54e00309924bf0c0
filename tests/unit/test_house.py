"""What must agree across files: pins, environments, names."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def test_torch_is_pinned_where_everything_is() -> None:
    assert pins()["torch"] == "2.13.0"


def test_the_conda_environments_have_the_versions_of_the_constraints() -> None:
    for path in (ROOT / "envs").glob("*.yaml"):
        (pip,) = [item["pip"] for item in yaml.safe_load(path.read_text())["dependencies"] if isinstance(item, dict)]
        for line in pip:
            name, version = line.split("==")
            assert pins()[name.lower().replace("_", "-")] == version, f"{path.name}: {line}"


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]:
        assert name.lower().replace("_", "-") in pins(), name


def test_every_environment_a_rule_names_is_there() -> None:
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for name in re.findall(r"envs/[\w-]+\.yaml", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def test_every_rule_runs_a_script_and_logs() -> None:
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            if "script:" in rule:
                assert all(f"    {word}:" in rule for word in ("output", "log", "threads", "params", "conda")), rule
            assert "run:" not in rule
            assert "shell:" not in rule


def test_no_rule_asks_for_more_than_one_card() -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert set(re.findall(r"\bgpu=(.+?),", text)) == {"1"}
