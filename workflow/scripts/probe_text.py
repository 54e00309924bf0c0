"""Fit and score classifiers on one kind of input that needs no model."""

from tessera import arms, examples, probes, protocols
from tessera.job import job

with job(snakemake):
    wildcards = snakemake.wildcards
    table = examples.read(snakemake.input.table)
    cells, predictions = protocols.run(
        arms.on_text(wildcards.head, table),
        table,
        identity={
            "model": "text",
            "dataset": wildcards.dataset,
            "head": wildcards.head,
            "arm": wildcards.head.partition("-")[0],
            "layer": None,
            "width": None,
            "pooling": None,
        },
        thresholds=[None],
        protocols=snakemake.params.protocols,
        strict_settings=snakemake.params.strict,
    )
    probes.write(cells, predictions, snakemake.output[0])
