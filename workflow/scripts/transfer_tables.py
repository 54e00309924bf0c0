"""Put the tables of all transfers together."""

from pathlib import Path

from tessera.job import job
from tessera.transfer import tables

with job(snakemake):
    tables.collect([Path(path).parent for path in snakemake.input.cells], Path(snakemake.output[0]).parent)
