"""Bring one dataset into one table."""

from pathlib import Path

import tessera.online  # noqa: F401 - before anything imports the Hub's client
from tessera import datasets
from tessera.job import job

with job(snakemake):
    given = snakemake.input.get("given")
    datasets.build(
        snakemake.wildcards.dataset,
        snakemake.params.entry,
        Path(snakemake.output.table),
        Path(snakemake.output.record),
        seed=snakemake.params.seed,
        generated=Path(given) if given and "demo" in snakemake.params.entry["source"] else None,
    )
