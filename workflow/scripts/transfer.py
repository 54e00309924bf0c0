"""Compute one transfer: a whole matrix of scores."""

from pathlib import Path

from tessera import transfer
from tessera.job import job

with job(snakemake):
    transfer.run(
        snakemake.wildcards.transfer,
        snakemake.params.settings,
        results=Path("results"),
        folder=Path(snakemake.output[0]).parent,
        code=snakemake.params.code,
    )
