"""Lay the run's cells beside the published ones, and judge the findings on both."""

from pathlib import Path

from tessera import scoreboard
from tessera.job import job

with job(snakemake):
    scoreboard.write(
        cells=Path(snakemake.input.cells),
        transfers=Path(snakemake.input.transfers) if snakemake.input.get("transfers") else None,
        published=Path(snakemake.input.published[0]).parent,
        sources=snakemake.params.sources,
        images=snakemake.params.images,
        output=Path(snakemake.output[0]).parent,
    )
