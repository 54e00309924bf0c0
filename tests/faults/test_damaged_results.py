"""Files of a finished run that are cut, altered or deleted: nothing is computed on them, and one line says what mends it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetched import OFFLINE, STAGES, made_by, online
from hub_served import Hub
from worlds import World

from tessera import examples, shards, snapshots
from tessera.errors import UserError
from tessera.files import read_json

PROBES, CAPTURE, CHECK = STAGES["probe"], STAGES["capture"], "checks"
FLIPS = 300


def flip(path: Path, bit: int | None = None) -> None:
    """Turn one bit of a file over, in the middle of it."""
    content = bytearray(path.read_bytes())
    bit = len(content) * 4 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    # Another file, since this one may be a link to what others have.
    path.unlink()
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def errors(printed: str) -> list[str]:
    assert "Traceback" not in printed
    return sorted(line.split(" ERROR ")[1] for line in printed.splitlines() if " ERROR " in line)


def folder_of(world: World) -> Path:
    (manifest,) = (world.folder / "results/activations").rglob(shards.MANIFEST)
    return manifest.parent


def refusal(reader: Callable[[], object]) -> str | None:
    try:
        reader()
    except UserError as error:
        return str(error)
    return None


def test_whatever_bit_of_a_file_is_turned_over_its_reader_names_the_file(fetched_world: World, tmp_path: Path) -> None:
    results = fetched_world.copy(tmp_path / "world").folder / "results"
    (capture,) = (path.parent for path in results.rglob(shards.MANIFEST))
    table, record = results / "datasets/reviews.parquet", read_json(results / "datasets/reviews.json")
    sae = results / "saes/mine-l3"
    readers: dict[Path, Callable[[], object]] = {
        capture / "mine-l3/part-00002.parquet": lambda: shards.read_sae(capture, "mine-l3"),
        capture / "layer-1/part-00000.parquet": lambda: shards.read_hidden(capture, "layer-1", "mean"),
        capture / "tokens/part-00001.parquet": lambda: list(shards.stream(capture, "tokens", ["token_ids"])),
        table: lambda: examples.read(table, record["sha256"]),
        sae / "sae_weights.safetensors": lambda: snapshots.require_whole(sae),
        sae / "cfg.json": lambda: snapshots.require_whole(sae),
    }
    rng = np.random.default_rng(0)
    for path, reader in readers.items():
        reader()
        whole = path.read_bytes()
        for bit in rng.integers(len(whole) * 8, size=FLIPS).tolist():
            flip(path, bit)
            said = refusal(reader)
            # A table whose examples are the same for all that is no other dataset.
            assert path == table if said is None else said.startswith(f"{path}: "), (path, bit, said)
            path.write_bytes(whole)


def test_a_probe_reads_no_damaged_shard_and_what_it_says_mends_it(fetched_world: World, tmp_path: Path) -> None:
    world = fetched_world.copy(tmp_path / "world")
    folder = folder_of(world).relative_to(world.folder)
    short, turned, gone = (
        folder / name
        for name in ("mine-l1/part-00001.parquet", "mine-l3/part-00002.parquet", "layer-1/part-00003.parquet")
    )
    cut(world.folder / short)
    flip(world.folder / turned)
    (world.folder / gone).unlink()
    # Nothing reads them, so nothing is to be done.
    assert world.planned() == {}
    PROBES.forget(world.folder / "results")
    mend = f"Mend: delete {folder / shards.MANIFEST} and run again; only shards that are damaged are made anew."
    other = "the shard is missing or damaged (its content is not what the manifest says)"
    assert errors(world.run(PROBES.target, check=False)) == [
        f"{gone}: the shard is missing or damaged (it is missing). {mend}",
        f"{short}: {other}. {mend}",
        f"{turned}: {other}. {mend}",
    ]
    others = {path: path.stat().st_mtime_ns for path in (world.folder / folder).glob("*/part-0000[0456].parquet")}
    assert len(others) == 4 * 4
    (world.folder / folder / shards.MANIFEST).unlink()
    world.run(PROBES.target)
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert made_by(world.folder) == made_by(fetched_world.folder)
    assert world.planned() == {}


def test_a_deleted_manifest_is_made_again_of_the_shards_that_are_there(fetched_world: World, tmp_path: Path) -> None:
    world = fetched_world.copy(tmp_path / "world")
    manifest = folder_of(world) / shards.MANIFEST
    before = {path: path.stat().st_mtime_ns for path in manifest.parent.rglob("part-*")}
    manifest.unlink()
    # Whoever has the report may remove what is large. It is made again for whatever asks for it.
    assert world.planned() == {}
    assert world.planned(target=CAPTURE.target) == {"capture": 1}
    world.run(CAPTURE.target)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert made_by(world.folder) == made_by(fetched_world.folder)
    assert world.planned() == {}


SNAPSHOTS = {
    "models/mine/model.safetensors": (flip, "its content is not what revision.json says"),
    "models/mine/tokenizer.json": (Path.unlink, "it is missing"),
    "saes/mine-l3/sae_weights.safetensors": (cut, "its content is not what revision.json says"),
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_capture_reads_no_damaged_snapshot_and_what_it_says_mends_it(
    fetched_world: World, study_hub: Hub, tmp_path: Path, name: str
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    damage, wrong = SNAPSHOTS[name]
    path = Path("results") / name
    damage(world.folder / path)
    assert world.planned() == {}
    CAPTURE.forget(world.folder / "results")
    record = path.with_name(snapshots.RECORD)
    line = f"{path}: {wrong}. Mend: delete {record} and run again; the snapshot is brought anew."
    assert errors(world.run(CAPTURE.target, check=False, environment=OFFLINE)) == [line]
    (world.folder / record).unlink()
    world.run(CAPTURE.target, environment=online(study_hub, tmp_path / "cache"))
    assert made_by(world.folder) == made_by(fetched_world.folder)
    assert world.planned() == {}


def exchange(path: Path) -> None:
    """Write the table anew with two texts in each other's place."""
    table = pq.ParquetFile(path).read()
    texts = table["text"].to_pylist()
    texts[3], texts[8] = texts[8], texts[3]
    path.unlink()
    pq.write_table(table.set_column(1, table.schema.field("text"), pa.array(texts)), path)


TABLES = {"cut": cut, "with-other-examples": exchange, "deleted": Path.unlink}


@pytest.mark.parametrize("how", TABLES)
def test_no_job_reads_a_damaged_table_and_what_it_says_mends_it(
    fetched_world: World, study_hub: Hub, tmp_path: Path, how: str
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    path = Path("results/datasets/reviews.parquet")
    TABLES[how](world.folder / path)
    assert world.planned() == {}
    (world.folder / "results/checks/reviews.json").unlink()
    head = world.folder / "results/probes/mine/reviews/layer-1"
    for file in [*head.iterdir(), *(world.folder / "results/probes/text/reviews").iterdir()]:
        file.unlink()
    # What is deleted is brought in for whatever asks for it.
    if how != "deleted":
        told = errors(world.run(CHECK, "probes", check=False))
        # The check, the text probes, and the probe on a head.
        assert len(told) == 4
        assert len(set(told)) == 1
        assert told[0].startswith(f"{path}: the table of a dataset is missing or damaged (")
        assert told[0].endswith(". Mend: delete it and run again; it is brought in anew.")
        (world.folder / path).unlink()
    world.run(CHECK, "probes", environment=online(study_hub, tmp_path / "cache"))
    assert made_by(world.folder) == made_by(fetched_world.folder)
