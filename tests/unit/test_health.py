"""The table of SAE health, from records and manifests."""

from pathlib import Path

from tessera import health
from tessera.files import write_json


def test_an_sae_has_a_row_of_its_own_and_one_for_each_dataset_it_read(tmp_path: Path) -> None:
    record = tmp_path / "saes/s/revision.json"
    write_json(record, {"layer": 1, "d_sae": 8, "architecture": "topk", "demo": {"l0": 3.0, "dead_fraction": 0.5}})
    manifest = tmp_path / "activations/m/d/0123456789/manifest.json"
    measured = {"tokens": 9, "l0": 2.0, "dead_fraction": 0.25, "explained_variance": 0.75}
    entry = {"kind": "sae", "layer": 1, "width": 8, "architecture": "topk", "health": measured}
    write_json(manifest, {"heads": {"s": entry, "layer-1": {"kind": "hidden", "layer": 1}, "dropped": entry}})
    rows = health.table({"s": "m"}, [record], [manifest]).to_pylist()
    assert [(row["sae"], row["model"], row["dataset"], row["l0"]) for row in rows] == [
        ("s", "m", None, 3.0),
        ("s", "m", "d", 2.0),
    ]
    assert rows[0]["explained_variance"] is None
    assert rows[1]["explained_variance"] == 0.75
    assert {row["width"] for row in rows} == {8}
