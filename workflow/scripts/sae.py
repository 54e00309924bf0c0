"""Store one SAE in canonical form."""

from pathlib import Path

import tessera.online  # noqa: F401 - before anything imports the Hub's client
from tessera import sae_snapshots
from tessera.job import job
from tessera.snapshots import given_folder

with job(snakemake):
    sae_snapshots.store(
        snakemake.wildcards.sae,
        snakemake.params.entry,
        Path(snakemake.output[0]).parent,
        given_folder(snakemake.input.get("given")),
        Path(snakemake.input.model),
        snakemake.params.seed,
    )
