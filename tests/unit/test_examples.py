import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq

from tessera import examples


def test_reading_a_table_imports_nothing_heavy(tmp_path):
    columns = {"id": ["0"], "text": ["a"], "label": ["x"], "subset": ["all"], "split": [None], "group": [0]}
    pq.write_table(pa.table(columns, schema=examples.schema("text")), tmp_path / "t.parquet")
    program = (
        "import sys; from tessera import examples; examples.read(sys.argv[1]); "
        "print({'torch', 'pandas', 'datasets', 'PIL', 'scipy'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "t.parquet")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def test_a_table_comes_back_as_it_was_written_to_the_last_character(tmp_path):
    columns = {
        "id": ["a", "b\x00"],
        "text": ["\x00\u202e<b>", "x\x00"],
        "label": ["l\x00", "l"],
        "subset": ["all", "all"],
        "split": ["train", None],
        "group": [7, 7],
    }
    pq.write_table(pa.table(columns, schema=examples.schema("text")), tmp_path / "t.parquet")
    table = examples.read(tmp_path / "t.parquet")
    assert len(table) == 2
    assert (table.ids, table.texts, table.images) == (columns["id"], columns["text"], None)
    assert (table.labels.tolist(), table.subsets.tolist()) == (columns["label"], columns["subset"])
    assert (table.splits, table.groups.tolist()) == (columns["split"], columns["group"])
    assert (table.labels == "l").tolist() == [False, True]


def test_images_come_back_as_bytes(tmp_path):
    columns = {"id": ["0"], "image": [b"\x89\x00"], "label": ["x"], "subset": ["all"], "split": [None], "group": [0]}
    pq.write_table(pa.table(columns, schema=examples.schema("image")), tmp_path / "t.parquet")
    table = examples.read(tmp_path / "t.parquet")
    assert (table.texts, table.images) == (None, [b"\x89\x00"])
