"""Train the demo world's tokenizer."""

from pathlib import Path

from tessera.demo import tokenizer
from tessera.demo.texts import read_prose
from tessera.job import job

with job(snakemake):
    tokenizer.train(read_prose(snakemake.input.prose), snakemake.params.vocabulary, Path(snakemake.output[0]).parent)
