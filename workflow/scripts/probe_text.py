"""Fit and score classifiers on one kind of input that needs no model."""

from tessera import arms, examples, probes, protocols
from tessera.files import read_json
from tessera.job import job

with job(snakemake):
    wildcards = snakemake.wildcards
    dataset_sha256 = read_json(snakemake.input.record)["sha256"]
    table = examples.read(snakemake.input.table, dataset_sha256)
    arm = arms.on_text(wildcards.head, table)
    named = {"model": "text", "dataset": wildcards.dataset, "head": wildcards.head, "pooling": None}
    picked = probes.Picked()
    cells, predictions = protocols.run(
        arm,
        table,
        identity={**named, "arm": wildcards.head.partition("-")[0], "layer": None, "width": None},
        search={**snakemake.params.search, **snakemake.params.alone, "thresholds": [None]},
        protocols=snakemake.params.protocols,
        strict_settings=snakemake.params.strict,
        keep=picked.keep,
    )
    about = {**named, "dataset_sha256": dataset_sha256, "snapshots": {}}
    probes.write(cells, predictions, snakemake.output[0], probe=picked.content(about, table, arm))
