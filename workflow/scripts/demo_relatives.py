"""Write what is related to the demo's request task."""

from pathlib import Path

from tessera.demo import relatives
from tessera.job import job

with job(snakemake):
    relatives.write(
        relatives.read(snakemake.input.requests),
        translations_table=Path(snakemake.output.translations),
        plans_table=Path(snakemake.output.plans),
        diaries_table=Path(snakemake.output.diaries),
        others=snakemake.params.others,
        seed=snakemake.params.seed,
    )
