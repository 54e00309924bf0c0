"""Look at one dataset for copies across its splits and shortcuts to its labels."""

from pathlib import Path

from tessera import leakage
from tessera.job import job

with job(snakemake):
    leakage.write(
        Path(snakemake.input.table),
        Path(snakemake.output[0]),
        protocols=snakemake.params.protocols,
        strict_settings=snakemake.params.strict,
    )
