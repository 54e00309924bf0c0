"""Write the demo world's tasks, its quiz, and the texts that its models learn from."""

from pathlib import Path

from tessera.demo import texts
from tessera.job import job

with job(snakemake):
    docstrings_table, requests_table = map(Path, snakemake.output.tasks)
    texts.write(
        docstrings_table=docstrings_table,
        requests_table=requests_table,
        prose_table=Path(snakemake.output.prose),
        quiz_table=Path(snakemake.output.quiz),
        tuning_table=Path(snakemake.output.tuning),
        **snakemake.params.docstrings,
        meanings=snakemake.params.meanings,
        marked=snakemake.params.marked,
        questions=snakemake.params.questions,
        seed=snakemake.params.seed,
    )
