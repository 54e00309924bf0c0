"""Tune the demo world's large language model."""

from pathlib import Path

from tessera.demo import language_model
from tessera.demo.texts import read_prose
from tessera.job import job

with job(snakemake) as log:
    record = language_model.tune(
        Path(snakemake.input.model).parent,
        read_prose(snakemake.input.tuning),
        Path(snakemake.output[0]).parent,
        steps=snakemake.params.steps,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
    log.info("held-out loss %(heldout_loss).2f nats a token, before tuning %(heldout_loss_before).2f", record)
