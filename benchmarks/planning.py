"""What planning costs: dry runs of the default config and of a large one, beside a bare workflow with as many jobs.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/planning.py`.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
ROUNDS = 3

BARE = """
rule all:
    input: "all.txt"
rule collect:
    input: [f"out/{{i}}.txt" for i in range({jobs})]
    output: "all.txt"
    shell: "touch {{output}}"
rule one:
    output: "out/{{i}}.txt"
    shell: "touch {{output}}"
"""


def large_config() -> dict[str, Any]:
    """Three models, twenty datasets, twelve heads a model, five poolings."""
    pin = "0" * 40
    models = {f"m{m}": {"source": {"hub": f"owner/m{m}", "revision": pin}} for m in range(3)}
    saes = {
        f"m{m}-s{s}": {"source": {"release": "r", "id": f"{s}"}, "model": f"m{m}", "layer": s, "width": 16384}
        for m in range(3)
        for s in range(12)
    }
    return {
        "datasets": {f"d{d}": {"source": {"hub": f"owner/d{d}", "revision": pin}} for d in range(20)},
        "models": models,
        "saes": saes,
        "probes": {"sae_poolings": ["sum", "max", "last", "top-20", "top-50"]},
    }


def dry_run(folder: Path, *arguments: str) -> tuple[int, float]:
    """The jobs of a dry run and its median time; the first run, which fills caches, does not count."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--cores", "2", *arguments]
    times, printed = [], ""
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603 - our own
        printed = done.stdout + done.stderr
        times.append(time.perf_counter() - start)
    return int(re.findall(r"^total +(\d+)$", printed, re.MULTILINE)[0]), statistics.median(times[1:])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "results").mkdir()
        (folder / "large.yaml").write_text(yaml.safe_dump(large_config()))
        default, default_s = dry_run(folder, "--snakefile", str(ROOT / "Snakefile"))
        large, large_s = dry_run(folder, "--snakefile", str(ROOT / "Snakefile"), "--configfile", "large.yaml")
        (folder / "bare.smk").write_text(BARE.format(jobs=large - 2))
        bare, bare_s = dry_run(folder, "--snakefile", "bare.smk")
    print("| plan | jobs | seconds | ratio to bare |\n|---|---|---|---|")
    print(f"| default config | {default:,} | {default_s:.1f} | |")
    print(f"| 3 models x 20 datasets x 12 heads x 5 poolings | {large:,} | {large_s:.1f} | {large_s / bare_s:.2f} |")
    print(f"| bare workflow | {bare:,} | {bare_s:.1f} | 1 |")


if __name__ == "__main__":
    main()
