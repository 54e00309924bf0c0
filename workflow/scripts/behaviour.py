"""Ask a model the questions of a dataset, and score its answers."""

from pathlib import Path

from tessera import behaviours, examples
from tessera.files import read_json
from tessera.job import job
from tessera.snapshots import require_whole

with job(snakemake):
    dataset_sha256 = read_json(snakemake.input.record)["sha256"]
    model_record, entry = Path(snakemake.input.model), snakemake.params.entry
    require_whole(model_record.parent)
    behaviours.run(
        snakemake.wildcards.behaviour,
        examples.read(snakemake.input.table, dataset_sha256),
        {**entry, "reading": snakemake.params.reading},
        model=(entry["model"], model_record.parent, read_json(model_record)["sha256"]),
        dataset_sha256=dataset_sha256,
        output=Path(snakemake.output.table),
        record=Path(snakemake.output.record),
        device=snakemake.config["capture"]["device"],
        batch_tokens=snakemake.config["capture"]["batch_tokens"],
    )
