"""Store one model in canonical form."""

from pathlib import Path

import tessera.online  # noqa: F401 - before anything imports the Hub's client
from tessera import model_snapshots
from tessera.job import job
from tessera.snapshots import given_folder

with job(snakemake):
    model_snapshots.store(
        snakemake.wildcards.model,
        snakemake.params.source,
        Path(snakemake.output[0]).parent,
        given_folder(snakemake.input.get("given")),
    )
