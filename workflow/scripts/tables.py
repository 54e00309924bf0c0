"""Collect every cell, choose each arm's configuration, and measure the SAEs."""

from pathlib import Path

from tessera import examples, health, probes, tables
from tessera.files import read_json
from tessera.job import job

with job(snakemake):
    folder = Path(snakemake.output[0]).parent
    cells = [*map(Path, snakemake.input.text_probes), *probes.of_heads(snakemake.input.head_probes)]
    for table, record in zip(snakemake.input.tables, snakemake.input.records, strict=True):
        examples.read(table, read_json(record)["sha256"])
    tables.collect(cells, {Path(path).stem: path for path in snakemake.input.tables}, folder)
    records, manifests = ([Path(path) for path in paths] for paths in (snakemake.input.saes, snakemake.input.manifests))
    tables.write(health.table(snakemake.params.saes, records, manifests), folder / "saes.parquet")
