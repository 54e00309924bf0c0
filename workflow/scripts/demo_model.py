"""Train one of the demo world's language models."""

from pathlib import Path

from tessera.demo import language_model
from tessera.demo.texts import read_prose
from tessera.job import job

with job(snakemake) as log:
    record = language_model.train(
        read_prose(snakemake.input.prose),
        Path(snakemake.input.tokenizer).parent,
        Path(snakemake.output[0]).parent,
        **snakemake.params.shape,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
    log.info("held-out loss %(heldout_loss).2f nats a token, unigram entropy %(unigram_entropy).2f", record)
