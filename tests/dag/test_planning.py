"""What a plan costs, and what a mistake in a config says."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from worlds import ROOT, own_config, own_world

HEAVY = ("torch", "pandas", "transformers", "sae_lens", "datasets")

WATCH = """
import sys
from snakemake.cli import main
sys.argv = ["snakemake", "--dry-run", "--quiet", "all", "--snakefile", sys.argv[1]]
before = set(sys.modules)
try:
    main()
finally:
    print("HEAVY", sorted({name.split(".")[0] for name in set(sys.modules) - before} & set(%r)))
"""

LOCAL = """
import sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, ResourceSettings

snakefile, *configs = map(Path, sys.argv[1:])
for config in configs:
    with SnakemakeApi() as api:
        parsed = api.workflow(ResourceSettings(cores=1), ConfigSettings(configfiles=[config]), snakefile=snakefile)
        print("LOCAL", sorted(parsed._workflow._localrules))
"""

# A plan is printed where it is asked for, and what only puts things together is not worth a job on a cluster.
HERE = ["figure", "findings", "plan", "report", "scoreboard", "tables", "transfer_tables"]


def test_parsing_imports_no_heavy_library(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WATCH % (HEAVY,), str(ROOT / "Snakefile")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


def test_the_catalogs_entry_plans_the_same_jobs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules"]
    plans = []
    for snakefile in ("Snakefile", "workflow/Snakefile"):
        done = subprocess.run(
            [*command, "--snakefile", str(ROOT / snakefile)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        plans.append((done.stdout + done.stderr).split("Job stats:")[1])
    assert plans[0] == plans[1]


def test_what_fetches_from_the_hub_runs_where_snakemake_runs(tmp_path: Path) -> None:
    dataset = {"text": "text", "label": "label", "source": {"file": "data.csv"}}
    fetched = {"hub": "owner/name", "revision": "a" * 40}
    sae = {"source": {"release": "r", "id": "i"}, "model": "m", "layer": 1, "width": 8}
    configs = [
        {"datasets": {"d": dataset}, "models": {"m": {"source": fetched, "layers": [1]}}, "saes": {"s": sae}},
        {"datasets": {"d": {**dataset, "source": fetched}}, "models": {}},
    ]
    (tmp_path / "data.csv").touch()
    for place, config in enumerate(configs):
        (tmp_path / f"{place}.yaml").write_text(yaml.safe_dump(config))
    command = [
        sys.executable,
        "-c",
        LOCAL,
        str(ROOT / "Snakefile"),
        "0.yaml",
        "1.yaml",
        str(ROOT / "config/config.yaml"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("LOCAL")]
    assert found == [f"LOCAL {sorted([*HERE, *fetching])}" for fetching in (["model", "sae"], ["dataset"], [])]


def broken(change: Any) -> dict[str, Any]:
    config = copy.deepcopy(own_config())
    change(config)
    return config


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c.update(prob=1), "prob: unknown key"),
        (lambda c: c["datasets"]["reviews"]["source"].update(file="data/none.csv"), "there is no 'data/none.csv'"),
        (lambda c: c["saes"]["mine-l1"].update(model="nobody"), "saes.mine-l1.model: there is no model 'nobody'"),
        (lambda c: c["models"]["mine"].update(layers="all"), "models.mine.layers: 'all' will not do"),
    ],
)
def test_a_mistake_in_the_config_is_one_line_before_anything_runs(
    tmp_path: Path, tiny_model: Path, change: Any, line: str
) -> None:
    world = own_world(tmp_path / "world", tiny_model)
    printed = world.run("--dry-run", config=broken(change), check=False)
    assert line in printed
    assert "Traceback" not in printed
    assert not (world.folder / "results").exists()
