"""Train the demo world's vision-language model."""

from pathlib import Path

from tessera.demo import digits, vision
from tessera.job import job

with job(snakemake) as log:
    record = vision.train(
        Path(snakemake.input.model).parent,
        digits.read(snakemake.input.digits),
        Path(snakemake.output[0]).parent,
        steps=snakemake.params.steps,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
    log.info("names %(digits_named).0f%% of held-out digits", {"digits_named": 100 * record["digits_named"]})
