import csv
import json
from pathlib import Path

import datasets as hugging_face
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tessera import tablefiles
from tessera.errors import UserError

WANTED = {"text": "text", "label": "label"}


def cells_of(path: Path, content: str | bytes, wanted: dict[str, str] = WANTED) -> dict[str, list[str | None]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = tablefiles.read(path, "d", wanted)
    return {role: column.to_pylist() for role, column in read.columns.items()}


def refusal(path: Path, content: str | bytes, wanted: dict[str, str] = WANTED) -> str:
    with pytest.raises(UserError) as caught:
        cells_of(path, content, wanted)
    return str(caught.value)


# --- any file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_an_empty_file_is_refused_by_name(tmp_path, ending):
    assert "empty" in refusal(tmp_path / f"t.{ending}", "")


def test_what_is_no_file_of_a_known_ending_is_refused(tmp_path):
    assert ".jsonl, .parquet" in refusal(tmp_path / "t.xlsx", "x")
    (tmp_path / "folder.csv").mkdir()
    for path, words in ((tmp_path / "folder.csv", "this is a folder"), (tmp_path / "none.csv", "no such file")):
        with pytest.raises(UserError, match=words):
            tablefiles.read(path, "d", WANTED)


def test_a_file_one_may_not_read_is_a_user_error(tmp_path, monkeypatch):
    def refuse(*_args, **_keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    (tmp_path / "t.csv").touch()
    monkeypatch.setattr(
        Path, "stat", lambda *_args, **_keywords: type("Stat", (), {"st_size": 3, "st_mode": 0o100644})()
    )
    with pytest.raises(UserError, match="may not read"):
        tablefiles.read(tmp_path / "t.csv", "d", WANTED)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_missing_column_names_the_key_and_the_columns_there_are(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"body": ["a"], "label": ["x"]}), path)
        content: str | bytes = path.read_bytes()
    else:
        content = {"csv": "body,label\na,x\n", "jsonl": '{"body": "a", "label": "x"}\n'}[ending]
    message = refusal(path, content)
    assert message.startswith("datasets.d.text: there is no column 'text'")
    assert "'body', 'label'" in message


# --- CSV and TSV -------------------------------------------------------------------------------------------------------


def test_csv_cells_keep_quotes_commas_newlines_and_the_spelling_of_numbers(tmp_path):
    content = 'label,text,other\r\n01,"a ""b"", c\r\nd",1\r\n1,=1+1,\r\n1.0,<b>\x00\u202e\u2028,\r\n'
    assert cells_of(tmp_path / "t.csv", content) == {
        "text": ['a "b", c\r\nd', "=1+1", "<b>\x00\u202e\u2028"],
        "label": ["01", "1", "1.0"],
    }


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert cells_of(tmp_path / "t.csv", b"\xef\xbb\xbftext,label\na,x\n")["text"] == ["a"]
    assert cells_of(tmp_path / "t.jsonl", b'\xef\xbb\xbf{"text": "a", "label": "x"}\n')["text"] == ["a"]


def test_a_tsv_is_split_at_tabs_alone(tmp_path):
    assert cells_of(tmp_path / "t.tsv", "text\tlabel\na,b\tx\n")["text"] == ["a,b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path, end):
    path = tmp_path / "t.csv"
    path.write_bytes(end.join(["text,label", "", '"a', 'b",x', "", "c,y", ""]).encode())
    read = tablefiles.read(path, "d", WANTED)
    assert read.rows == 2
    assert [read.place(0), read.place(1)] == [f"{path}, line 3", f"{path}, line 6"]


def test_a_cell_of_ten_megabytes_is_read_and_the_process_wide_limit_put_back(tmp_path):
    before = csv.field_size_limit(1234)
    long = "x" * 10_000_000
    assert cells_of(tmp_path / "t.csv", f'text,label\n"{long}",a\n{long},b\n')["text"] == [long, long]
    assert csv.field_size_limit(before) == 1234


def test_a_ragged_row_is_named_by_the_line_it_begins_on(tmp_path):
    content = 'text,label\n"two\nlines",x\nno label\n'
    assert "t.csv, line 4: this row has 1 cells and the header 2" in refusal(tmp_path / "t.csv", content)
    assert "line 2: this row has 3 cells" in refusal(tmp_path / "t.csv", "text,label\na,b,x\n")


@pytest.mark.parametrize("rest", ["", 'more "quoted" text,y\n', '"fine",y\n'])
def test_a_quote_that_never_closes_is_named_by_the_line_it_opens_on(tmp_path, rest):
    assert "t.csv, line 3: a quoted cell" in refusal(tmp_path / "t.csv", f'text,label\na,x\n"b,x\nc,y\n{rest}')


def test_a_quote_within_an_unquoted_cell_is_a_character(tmp_path):
    assert cells_of(tmp_path / "t.csv", 'text,label\n5" disk,x\n')["text"] == ['5" disk']


def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(tmp_path):
    content = b"text,label\nfine,x\n" + "caf\xe9,y\n".encode("latin-1")
    message = refusal(tmp_path / "t.csv", content)
    assert "t.csv, line 3: byte 21 of the file (0xe9)" in message
    assert content[21] == 0xE9


def test_a_wrong_byte_far_behind_the_decoders_buffer_is_found(tmp_path):
    content = b"text,label\n" + b"fine,x\n" * 100_000 + b"\xff,y\n"
    assert "line 100002: byte 700011 of" in refusal(tmp_path / "t.csv", content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_unicode_encodings_are_recognised(tmp_path, encoding):
    message = refusal(tmp_path / "t.csv", "text,label\na,x\n".encode(encoding))
    assert f"the file is {encoding.upper()}, not UTF-8" in message


def test_a_header_alone_and_two_columns_of_one_name_are_refused(tmp_path):
    assert "the table has no rows" in refusal(tmp_path / "t.csv", "text,label\n")
    assert "the table has no rows" in refusal(tmp_path / "t.csv", "\n\n")
    assert "two columns are called 'text'" in refusal(tmp_path / "t.csv", "text,label,text\na,x,b\n")


# --- JSON lines --------------------------------------------------------------------------------------------------------


def test_json_values_are_spelled_as_text_and_missing_keys_are_missing(tmp_path):
    lines = ['{"text": "a\u2028b",\r "label": 1}', "", '{"label": 2.0, "text": null}', '{"text": "c"}']
    assert cells_of(tmp_path / "t.jsonl", "\r\n".join(lines)) == {
        "text": ["a\u2028b", None, "c"],
        "label": ["1", "2", None],
    }
    assert cells_of(tmp_path / "t.jsonl", '{"text": "a", "label": true}')["label"] == ["true"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a"', "this is not JSON"),
        ("[1, 2]", "not an object"),
        ('"text"', "not an object"),
        ('{"text": "a", "text": "b"}', "the key 'text' is given twice"),
        ('{"text": "a", "label": NaN}', "NaN is no JSON number"),
        ("[" * 100_000, "this is not usable JSON"),
        ('{"text": "a", "label": ' + "1" * 5000 + "}", "this is not usable JSON"),
        ('{"text": "\\ud800", "label": "x"}', "half of a surrogate pair"),
        ('{"text": 3, "label": "x"}', "'text' holds a number, not text"),
        ('{"text": "a", "label": ["x"]}', "'label' holds a list or an object"),
    ],
)
def test_a_line_that_will_not_do_is_named_by_number(tmp_path, line, words):
    message = refusal(tmp_path / "t.jsonl", '{"text": "fine", "label": "x"}\n\n' + line + "\n")
    assert "t.jsonl, line 3: " in message
    assert words in message


@pytest.mark.parametrize("values", [("1", 1), (True, 1), (0.5, "a"), (False, "false")])
def test_two_kinds_of_label_are_refused_with_an_example_of_each(tmp_path, values):
    lines = [json.dumps({"text": "t", "label": value}) for value in (values[0], None, values[0], values[1])]
    message = refusal(tmp_path / "t.jsonl", "\n".join(lines))
    assert "line 4: 'label' holds" in message
    assert "t.jsonl, line 1." in message
    assert json.dumps(values[0]) in message
    assert json.dumps(values[1]) in message


# --- Parquet -----------------------------------------------------------------------------------------------------------


def parquet_labels(path: Path, labels: pa.Array) -> list[str | None]:
    pq.write_table(pa.table({"text": ["t"] * len(labels), "label": labels}), path)
    return tablefiles.read(path, "d", WANTED).columns["label"].to_pylist()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([1, 0, None], pa.int8()), ["1", "0", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([1.0, 0.5, float("nan"), -0.0]), ["1", "0.5", None, "0"]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array(["b", None, "a", "b"]).dictionary_encode(), ["b", None, "a", "b"]),
        (pa.array([3, 4, 3]).dictionary_encode(), ["3", "4", "3"]),
        (pa.array(["01", ""], pa.large_string()), ["01", ""]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_parquet_values_become_text(tmp_path, labels, expected):
    assert parquet_labels(tmp_path / "t.parquet", labels) == expected


@pytest.mark.parametrize("labels", [pa.array([["a"]]), pa.array([{"a": 1}]), pa.array([b"a"])])
def test_parquet_values_that_are_not_plain_are_refused(tmp_path, labels):
    with pytest.raises(UserError, match=r"^datasets\.d\.label: column 'label' holds"):
        parquet_labels(tmp_path / "t.parquet", labels)


def test_a_text_column_of_numbers_is_refused(tmp_path):
    pq.write_table(pa.table({"text": [1, 2], "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"^datasets\.d\.text: column 'text' holds int64, not text"):
        tablefiles.read(tmp_path / "t.parquet", "d", WANTED)


def test_class_names_that_hugging_face_wrote_into_the_file_are_used(tmp_path):
    features = hugging_face.Features(
        {"text": hugging_face.Value("string"), "label": hugging_face.ClassLabel(names=["no", "yes"])}
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    hugging_face.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    assert tablefiles.read(tmp_path / "t.parquet", "d", WANTED).columns["label"].to_pylist() == ["yes", "no", None]


@pytest.mark.parametrize("note", [b"", b"not json", b"[]", b'{"info": {"features": {"label": 1}}}'])
def test_a_strange_note_in_the_schema_is_ignored(tmp_path, note):
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": note})
    pq.write_table(table, tmp_path / "t.parquet")
    assert tablefiles.read(tmp_path / "t.parquet", "d", WANTED).columns["label"].to_pylist() == ["1"]


def test_a_class_without_a_name_is_refused():
    table = pa.table({"text": ["a", "b"], "label": [0, 2]})
    with pytest.raises(UserError, match="holds class 2, and only 2 have names"):
        tablefiles.arrow_cells(table, "d", WANTED, {"label": ["no", "yes"]}, str)


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a"] * 1000, "label": list(map(str, range(1000)))}), path)
    whole = path.read_bytes()
    damaged = whole[:20] + bytes(200) + whole[220:]
    for content in (b"no parquet at all", whole[:-50], damaged):
        assert "t.parquet: not readable as Parquet" in refusal(path, content)


def test_parquet_strings_that_are_not_utf8_are_named_by_row(tmp_path):
    texts = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"text": texts, "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet, row 1: 'text' is not UTF-8 at byte 0"):
        tablefiles.read(tmp_path / "t.parquet", "d", WANTED)


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path):
    folder = tmp_path / "label=z"
    folder.mkdir()
    assert parquet_labels(folder / "t.parquet", pa.array(["a", "b"])) == ["a", "b"]


def test_two_parquet_columns_of_one_name_and_a_table_without_rows_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    assert "two columns are called 'text'" in refusal(path, path.read_bytes())
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    assert "the table has no rows" in refusal(path, path.read_bytes())


def test_one_column_may_serve_two_roles(tmp_path):
    wanted = {**WANTED, "subset": "label"}
    assert cells_of(tmp_path / "t.csv", "text,label\na,x\n", wanted)["subset"] == ["x"]
