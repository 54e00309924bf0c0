"""Lay out what the best SAE probe of a dataset and model looks at."""

from pathlib import Path

from tessera import explorer, probes
from tessera.job import job

with job(snakemake):
    explorer.write(
        Path(snakemake.output[0]),
        model=snakemake.wildcards.model,
        dataset=snakemake.wildcards.dataset,
        results=Path("results"),
        cell_files=[*map(Path, snakemake.input.text_probes), *probes.of_heads(snakemake.input.head_probes)],
        heads=snakemake.params.heads,
        strict=snakemake.params.strict,
        settings=snakemake.params.settings,
    )
