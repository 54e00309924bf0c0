"""Draw one figure."""

from pathlib import Path

from tessera import figures
from tessera.job import job

with job(snakemake):
    tables = Path(snakemake.input[0]).parent
    stem = Path(snakemake.output[0]).with_suffix("")
    figures.write(snakemake.wildcards.figure, tables, stem, snakemake.params.titles)
