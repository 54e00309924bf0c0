"""Say what the tables say."""

from pathlib import Path

from tessera import findings
from tessera.job import job

with job(snakemake):
    findings.write(Path(snakemake.input[0]).parent, snakemake.params.titles, Path(snakemake.output[0]))
