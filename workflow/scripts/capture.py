"""Run one model over one dataset for the heads of one capture."""

from pathlib import Path

from tessera import capture, examples
from tessera.files import read_json
from tessera.job import job
from tessera.plan import Head
from tessera.snapshots import require_whole

with job(snakemake):
    model_record = Path(snakemake.input.model)
    dataset_sha256 = read_json(snakemake.input.record)["sha256"]
    for record in (model_record, *snakemake.input.saes):
        require_whole(Path(record).parent)
    effort = {key: snakemake.config["capture"][key] for key in ("device", "batch_tokens", "shard_tokens")}
    capture.run(
        Path(snakemake.output[0]).parent,
        model=(snakemake.wildcards.model, model_record.parent, read_json(model_record)["sha256"]),
        saes={
            Path(record).parent.name: (Path(record).parent, read_json(record)["sha256"])
            for record in snakemake.input.saes
        },
        heads=[Head(**head) for head in snakemake.params.heads],
        table=examples.read(snakemake.input.table, dataset_sha256),
        dataset_sha256=dataset_sha256,
        reading=capture.Reading(**snakemake.params.reading),
        effort=capture.Effort(**effort),
        code=snakemake.params.code,
    )
