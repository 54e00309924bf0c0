"""Look at one dataset for copies across its splits and shortcuts to its labels."""

from pathlib import Path

from tessera import examples, leakage
from tessera.files import read_json
from tessera.job import job

with job(snakemake):
    leakage.write(
        examples.read(snakemake.input.table, read_json(snakemake.input.record)["sha256"]),
        Path(snakemake.output[0]),
        protocols=snakemake.params.protocols,
        strict_settings=snakemake.params.strict,
    )
