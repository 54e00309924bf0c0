"""Tables, saved datasets and images of any kind, from slips to malice: what can be read in one way is, the rest is one line."""

import base64
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import datasets as hugging_face
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as tried_on
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from test_datasets import build_from, entry
from worlds import ROOT

from tessera import examples, sources, tablefiles
from tessera.errors import UserError

WANTED = {"text": "text", "label": "label", "group": "number"}
TEXTS = [f'"text" {place} is, ünï\u202e漢字 \x00\x1b =1+1 <script>' for place in range(60)]
ROWS = [{"text": text, "label": "ab"[place % 2], "number": place} for place, text in enumerate(TEXTS)]


def csv_bytes(delimiter: str) -> bytes:
    rows = [delimiter.join(['"' + row["text"].replace('"', '""') + '"', row["label"], str(row["number"])]) for row in ROWS]  # fmt: skip
    return "\n".join([delimiter.join(ROWS[0]), *rows]).encode()


def parquet_bytes(**options: object) -> bytes:
    table = pa.Table.from_pylist(ROWS)
    content = io.BytesIO()
    coded = table.set_column(1, "label", table["label"].combine_chunks().dictionary_encode())
    pq.write_table(coded, content, **options)
    return content.getvalue()


RIGHT = {
    "csv": csv_bytes(","),
    "tsv": csv_bytes("\t"),
    "jsonl": "\n".join(json.dumps(row, ensure_ascii=place % 2 == 0) for place, row in enumerate(ROWS)).encode(),
    "parquet": parquet_bytes(),
}
BYTES = [b"\x00", b"\xff", b"\xc3", b'"', b"\n", b"\r", b",", b"\t", b"{", b"[" * 2000, b"9" * 5000, b"\\ud800", b"NaN"]


def damaged(content: bytes, changes: list[tuple[str, float, float, bytes]]) -> bytes:
    """The bytes after some have been flipped, put in, taken out, or all behind a place been cut off."""
    for how, at, to, inserted in changes:
        start, stop = sorted((int(at * len(content)), int(to * len(content))))
        if how == "flipped" and start < len(content):
            content = content[:start] + bytes([content[start] ^ 1 << stop % 8]) + content[start + 1 :]
        elif how == "inserted":
            content = content[:start] + inserted + content[start:]
        elif how == "removed":
            content = content[:start] + content[min(stop, start + 64) :]
        elif how == "cut":
            content = content[:start]
    return content


PLACE = st.floats(0, 1)
CHANGE = st.tuples(
    st.sampled_from(["flipped", "flipped", "inserted", "removed", "cut"]), PLACE, PLACE, st.sampled_from(BYTES)
)
TRIED = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def outcome(read: Callable[[], object]) -> bool:
    """Whether it could be read; if not, that was said in one line, or the error comes through."""
    try:
        read()
    except UserError:
        return False
    return True


@pytest.mark.parametrize("ending", RIGHT)
def test_a_damaged_table_is_read_or_refused_in_one_line(tmp_path: Path, ending: str) -> None:
    path, outcomes = tmp_path / f"table.{ending}", Counter[bool]()

    @TRIED
    @tried_on(st.lists(CHANGE, max_size=3))
    def check(changes: list[tuple[str, float, float, bytes]]) -> None:
        path.write_bytes(damaged(RIGHT[ending], changes))
        outcomes[outcome(lambda: tablefiles.read(path, "d", WANTED))] += 1

    check()
    assert min(outcomes[True], outcomes[False]) > 10, outcomes


def test_damage_to_a_saved_dataset_is_one_line_and_never_the_end_of_the_process(tmp_path: Path) -> None:
    hugging_face.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    data = next((tmp_path / "saved").glob("*.arrow"))
    right, outcomes = data.read_bytes(), Counter[bool]()

    @TRIED
    @tried_on(st.lists(CHANGE, min_size=1, max_size=3))
    def check(changes: list[tuple[str, float, float, bytes]]) -> None:
        # The library maps the file into memory, so another takes its place.
        data.unlink()
        data.write_bytes(damaged(right, changes))
        outcomes[outcome(lambda: sources.read("d", entry({"saved": str(data.parent)}, group="number")))] += 1

    check()
    assert min(outcomes[True], outcomes[False]) > 10, outcomes


def test_offsets_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    hugging_face.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    data = next((tmp_path / "saved").glob("*.arrow"))
    starts = np.cumsum([0, *(len(text.encode()) for text in TEXTS)]).astype(np.int32)
    lying = starts.copy()
    lying[30] = 2**31 - 8
    content = data.read_bytes()
    assert starts.tobytes() in content
    data.unlink()
    data.write_bytes(content.replace(starts.tobytes(), lying.tobytes()))
    with pytest.raises(
        UserError, match=r"saved: its data is damaged \(.*out of bounds.*\)\. Mend: save it or fetch it"
    ):
        sources.read("d", entry({"saved": str(data.parent)}))


def test_a_saved_dataset_reads_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    for name in ("saved", "other"):
        hugging_face.Dataset.from_list(ROWS).save_to_disk(tmp_path / name)
    state = json.loads((tmp_path / "saved/state.json").read_text())
    inside = state["_data_files"][0]["filename"]
    for leading_out in (f"../other/{inside}", str(tmp_path / "other" / inside)):
        state["_data_files"][0]["filename"] = leading_out
        (tmp_path / "saved/state.json").write_text(json.dumps(state))
        with pytest.raises(UserError, match="saved: its data lies outside of it, in '"):
            sources.read("d", entry({"saved": str(tmp_path / "saved")}))


# --- schemas that lie ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        pa.schema([("text", pa.int64()), ("label", pa.string()), ("number", pa.int64())]),
        pa.schema([("text", pa.list_(pa.string())), ("label", pa.string()), ("number", pa.int64())]),
        pa.schema([("text", pa.dictionary(pa.int8(), pa.string())), ("label", pa.string()), ("number", pa.string())]),
        pa.schema([("other", pa.string())]),
        pa.schema([("text", pa.string_view()), ("label", pa.large_string()), ("number", pa.float16())]),
    ],
    ids=["number", "list", "coded", "names", "views"],
)
def test_what_a_parquet_file_says_of_its_columns_is_checked_against_them(tmp_path: Path, said: pa.Schema) -> None:
    """Arrow keeps a schema of its own beside Parquet's; here it is another table's."""
    path = tmp_path / "lying.parquet"
    table = pa.Table.from_pylist(ROWS)
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(said.serialize()).decode()})
    assert pq.ParquetFile(path).metadata.metadata[b"ARROW:schema"]
    found: list[object] = []
    if outcome(lambda: found.append(tablefiles.read(path, "d", WANTED))):
        assert found[0].columns["text"].to_pylist() == TEXTS


def test_strings_that_are_not_utf8_are_named_though_the_schema_says_they_are(tmp_path: Path) -> None:
    text = pa.array([text.encode("utf-16") for text in TEXTS], pa.binary()).view(pa.string())
    table = pa.Table.from_pylist(ROWS).set_column(0, "text", text)
    pq.write_table(table, tmp_path / "lying.parquet")
    with pytest.raises(UserError, match=r"lying\.parquet, row 0: 'text' is not UTF-8 at byte 0\. Mend: write the"):
        tablefiles.read(tmp_path / "lying.parquet", "d", WANTED)


# --- what is long or strange, and right ----------------------------------------------------------------------------


def test_every_character_of_a_hostile_text_is_kept(tmp_path: Path) -> None:
    for ending, content in RIGHT.items():
        (tmp_path / f"table.{ending}").write_bytes(content)
        assert tablefiles.read(tmp_path / f"table.{ending}", "d", WANTED).columns["text"].to_pylist() == TEXTS, ending


def test_names_that_lead_elsewhere_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["../../etc/passwd", "/dev/null", "con", "a\0b", "..", "-rf", "~", "C:\\x", "x" * 5000, "\u202etxt.exe"]
    rows = [{"text": f"text {name}", "label": "ab"[place % 2], "name": name} for place, name in enumerate(names)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "names.parquet")
    monkeypatch.chdir(tmp_path)
    _, table = build_from({"file": "names.parquet"}, tmp_path, id="name", subset="name")
    assert table.ids == names
    assert {path.name for path in tmp_path.iterdir()} == {"names.parquet", "d.parquet", "d.json"}


def test_a_million_rows_are_read_in_a_few_times_their_room(tmp_path: Path) -> None:
    path = tmp_path / "million.csv"
    rows = "".join(f"text {place} is one of a thousand,label {place % 3},part {place % 2}\n" for place in range(1000))
    path.write_text("text,label,part\n" + rows * 1000)
    program = (
        "import pathlib, sys\n"
        "from tessera import tablefiles\n"
        "peak = lambda: int(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) * 1024\n"
        "before = peak()\n"
        "wanted = {'text': 'text', 'label': 'label', 'subset': 'part'}\n"
        "cells = tablefiles.read(pathlib.Path(sys.argv[1]), 'd', wanted)\n"
        "print(cells.rows, cells.place(999_999).rsplit(' ', 1)[1], peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=settings).stdout
    rows, line_number, taken = map(int, told.split())
    assert (rows, line_number) == (1_000_000, 1_000_001)
    assert taken < 4 * path.stat().st_size


# --- images --------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format_, **options)
    return content.getvalue()


def noise(size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8))


def test_a_damaged_image_is_marked_whatever_was_done_to_it() -> None:
    right = [encoded(noise(24), format_) for format_ in examples.IMAGE_FORMATS]
    outcomes = Counter[str | None]()

    @settings(TRIED, max_examples=700)
    @tried_on(st.sampled_from(right), st.lists(CHANGE, min_size=1, max_size=3))
    def check(content: bytes, changes: list[tuple[str, float, float, bytes]]) -> None:
        outcomes[sources.look(damaged(content, changes))[1]] += 1

    check()
    assert set(outcomes) >= {None, sources.UNDECODABLE}


def bomb(kind: str) -> bytes:
    """A few kilobytes that unpack to hundreds of megabytes."""
    if kind == "text":
        note = PngImagePlugin.PngInfo()
        note.add_text("comment", "x" * 200_000_000, zip=True)
        return encoded(noise(8), "PNG", pnginfo=note)
    if kind == "pixels":
        return encoded(Image.new("1", (12_000, 12_000)), "PNG")
    return encoded(Image.new("1", (12_000, 12_000)), "TIFF", compression="group4")


@pytest.mark.parametrize(
    ("kind", "flaw"), [("text", sources.UNDECODABLE), ("pixels", sources.OVERSIZED), ("fax", sources.OVERSIZED)]
)
def test_an_image_that_unpacks_without_end_is_not_unpacked(kind: str, flaw: str) -> None:
    content = bomb(kind)
    assert len(content) < 1_000_000
    assert sources.look(content) == (b"", flaw)


def test_a_file_that_is_too_large_for_an_image_is_not_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LARGEST_IMAGE", 4000)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(ord(path.stem) - 80), "PNG"))
    (tmp_path / "images/dog/huge.png").write_bytes(encoded(noise(40), "PNG"))
    record, table = build_from({"images": str(tmp_path / "images")}, tmp_path)
    assert len(table) == 4
    assert record["exclusions"][sources.OVERSIZED] == {"count": 1, "examples": ["dog/huge.png"]}


def test_what_is_neither_file_nor_folder_among_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "images/cat").mkdir(parents=True)
    (tmp_path / "images/cat/a.png").write_bytes(encoded(noise(8), "PNG"))
    (tmp_path / "images/dog").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"images/dog: this is neither a file nor a folder\. Mend: remove it\."):
        sources.read("d", entry({"images": str(tmp_path / "images")}))
