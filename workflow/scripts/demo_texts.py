"""Write the demo world's tasks and prose."""

from pathlib import Path

from tessera.demo import texts
from tessera.job import job

with job(snakemake):
    docstrings_table, requests_table = map(Path, snakemake.output.tasks)
    texts.write(
        docstrings_table=docstrings_table,
        requests_table=requests_table,
        prose_table=Path(snakemake.output.prose),
        **snakemake.params.docstrings,
        **snakemake.params.requests,
        seed=snakemake.params.seed,
    )
