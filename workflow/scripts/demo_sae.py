"""Train one SAE of the demo world."""

from pathlib import Path

from tessera.demo import dictionary
from tessera.demo.texts import read_prose
from tessera.job import job

with job(snakemake) as log:
    record = dictionary.train(
        Path(snakemake.input.model).parent,
        read_prose(snakemake.input.prose),
        Path(snakemake.output[0]).parent,
        layer=snakemake.params.layer,
        width=snakemake.params.width,
        architecture=snakemake.params.architecture,
        steps=snakemake.params.steps,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
    log.info("explained variance %(explained_variance).2f at L0 %(l0).1f", record)
