"""Write the page that lays the study's figures beside a run's."""

from pathlib import Path

from tessera.figure_names import PaperFigure
from tessera.job import job
from tessera.report import paper

with job(snakemake):
    paper.build(
        Path(snakemake.output[0]),
        tables=Path(snakemake.input.tables[0]).parent,
        figures=Path(snakemake.input.figures[0]).parent,
        index=Path(snakemake.input.index),
        facts=Path(snakemake.input.facts),
        captions=Path(snakemake.input.captions[0]).parent,
        plain=snakemake.params.plain,
        paper=[PaperFigure(**figure) for figure in snakemake.params.figures],
        titles=snakemake.params.titles,
        sources=snakemake.params.sources,
        protocols=snakemake.params.protocols,
    )
