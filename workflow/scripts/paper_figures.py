"""Draw the study's figures from a run."""

from pathlib import Path

from tessera import paper_results
from tessera.figure_names import PaperFigure
from tessera.figures import paper
from tessera.job import job

with job(snakemake):
    run = paper_results.load(
        Path(snakemake.input.tables[0]).parent,
        snakemake.params.titles,
        sources=snakemake.params.sources,
        images=snakemake.params.images,
        image_transfers=snakemake.params.image_transfers,
        published=Path(snakemake.input.published[0]).parent,
    )
    figures = [PaperFigure(**figure) for figure in snakemake.params.figures]
    paper.write(figures, run, Path(snakemake.output[0]).parent)
