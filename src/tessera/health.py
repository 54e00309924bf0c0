"""How well each SAE does, as a table: on each dataset that was read through it, and where it was trained if that is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tessera.files import read_json

MEASURES = ("explained_variance", "l0", "dead_fraction", "norm_median", "norm_p99", "norm_max", "outlier_share")
SCHEMA = pa.schema(
    [("sae", pa.string()), ("model", pa.string()), ("layer", pa.int32()), ("width", pa.int32())]
    + [("architecture", pa.string()), ("dataset", pa.string()), ("tokens", pa.int64())]
    + [(name, pa.float64()) for name in MEASURES]
)


def table(models: Mapping[str, str], records: Sequence[Path], manifests: Sequence[Path]) -> pa.Table:
    """A row for each SAE as its own record has it (`dataset` is null), then one for each dataset it has read.

    `models` says which model each SAE reads; records and manifests are told by the folders they lie in.
    """
    rows: list[dict[str, Any]] = []
    for path in records:
        record = read_json(path)
        sae = path.parent.name
        shape = {"layer": record["layer"], "width": record["d_sae"], "architecture": record["architecture"]}
        rows.append({"sae": sae, "model": models[sae], **shape, **record.get("demo", {}), "dataset": None})
    for path in manifests:
        model, dataset = path.parts[-4:-2]
        for head, entry in read_json(path)["heads"].items():
            if entry["kind"] == "sae" and head in models:
                shape = {key: entry[key] for key in ("layer", "width", "architecture")}
                rows.append({"sae": head, "model": model, **shape, **entry["health"], "dataset": dataset})
    rows.sort(key=lambda row: (row["sae"], row["model"], row["dataset"] or ""))
    return pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
