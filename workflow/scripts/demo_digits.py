"""Write the demo world's pictures of digits and names of digits."""

from pathlib import Path

from tessera.demo import digits
from tessera.job import job

with job(snakemake):
    digits.write(
        task_table=Path(snakemake.output.digits),
        training_table=Path(snakemake.output.training),
        names_table=Path(snakemake.output.names),
        number=snakemake.params.digits,
        seed=snakemake.params.seed,
    )
