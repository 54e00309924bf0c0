"""What planning costs: dry runs of the default config and of a large one, beside a bare workflow with as many jobs.

Run from the project's folder with its environment: `.venv/bin/python benchmarks/planning.py`.
"""

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


def seconds(folder: Path, *arguments: str) -> float:
    """The median time of a dry run; the first, which fills caches, does not count."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--cores", "2", *arguments]
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603 - our own command
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "results").mkdir()
        (folder / "large.yaml").write_text(yaml.safe_dump(large_config()))
        (folder / "bare.smk").write_text(BARE.format(jobs=3785))
        snakefile = str(ROOT / "Snakefile")
        default = seconds(folder, "--snakefile", snakefile)
        large = seconds(folder, "--snakefile", snakefile, "--configfile", "large.yaml")
        bare = seconds(folder, "--snakefile", "bare.smk")
    print("| plan | jobs | seconds | ratio to bare |\n|---|---|---|---|")
    print(f"| default config | 104 | {default:.1f} | |")
    print(f"| 3 models x 20 datasets x 12 heads x 5 poolings | 3,787 | {large:.1f} | {large / bare:.2f} |")
    print(f"| bare workflow | 3,787 | {bare:.1f} | 1 |")


if __name__ == "__main__":
    main()
