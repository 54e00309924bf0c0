"""Fit and score classifiers on one pooled head."""

from pathlib import Path

from tessera import examples, pooling, protocols, shards
from tessera.job import job

with job(snakemake):
    capture = Path(snakemake.input.manifest).parent
    wildcards, head = snakemake.wildcards, dict(snakemake.params.head)
    thresholds = head.pop("thresholds")
    if head["arm"] == "sae":
        X = pooling.pool(shards.read_sae(capture, wildcards.head), wildcards.pooling)
    else:
        X = shards.read_hidden(capture, wildcards.head, wildcards.pooling)
    cells, predictions = protocols.run(
        X,
        examples.read(f"results/datasets/{wildcards.dataset}.parquet"),
        identity={**{key: wildcards[key] for key in ("model", "dataset", "head", "pooling")}, **head},
        thresholds=thresholds,
        protocols=snakemake.params.protocols,
        strict_settings=snakemake.params.strict,
    )
    protocols.write(cells, predictions, snakemake.output[0])
