"""Write the page that people open first."""

from pathlib import Path

from tessera import report
from tessera.job import job

with job(snakemake):
    report.build(
        Path(snakemake.output.page),
        tables=Path(snakemake.input.tables[0]).parent,
        findings=Path(snakemake.input.findings),
        figures=Path(snakemake.input.figures[0]).parent,
        captions=Path(snakemake.input.captions[0]).parent,
        datasets=[Path(path) for path in snakemake.input.datasets],
        models=[Path(path) for path in snakemake.input.models],
        saes=[Path(path) for path in snakemake.input.saes],
        checks=[Path(path) for path in snakemake.input.checks],
        behaviours=[Path(path) for path in snakemake.input.behaviours],
        citation=Path(snakemake.input.citation),
        manifests=[Path(path) for path in snakemake.input.manifests],
        benchmarks=Path(snakemake.output.page).parent / "benchmarks",
        features=[Path(path) for path in snakemake.input.features],
        apart={Path(file): Path(page) for file, page in snakemake.params.apart.items()},
        sae_models=snakemake.params.sae_models,
        probes=snakemake.params.probes,
        titles=snakemake.params.titles,
    )
