import hashlib
import io
import json
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tessera import datasets, examples, files, groups
from tessera.errors import UserError


def entry(source, **keys):
    plain = {"text": "text", "label": "label", "id": None, "subset": None, "split": None, "group": None}
    return {**plain, "max_examples": None, "title": None, "source": source, **keys}


def build(folder, content, seed=42, **keys):
    """The record and the table of a dataset made of these columns."""
    path = folder / "source.parquet"
    pq.write_table(pa.table(content), path)
    return build_from({"file": str(path)}, folder, seed, **keys)


def build_from(source, folder, seed=42, **keys):
    record = datasets.build("d", entry(source, **keys), folder / "d.parquet", folder / "d.json", seed=seed)
    assert files.read_json(folder / "d.json") == record
    return record, examples.read(folder / "d.parquet")


def refusal(folder, content, **keys):
    with pytest.raises(UserError) as caught:
        build(folder, content, **keys)
    assert not (folder / "d.parquet").exists()
    assert not (folder / "d.json").exists()
    return str(caught.value)


def two_classes(n):
    return {"text": [f"text {i}" for i in range(n)], "label": ["ab"[i % 2] for i in range(n)]}


# --- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_has_the_shared_schema_and_keeps_order_and_every_character(tmp_path):
    texts = ["=1+1", " \x00 padded\t", "<b>&amp;</b>", "\u202eabc\u2069\x1b[0m", "ﬁ ①"]
    labels = ["b", "b", "b", " a b\x00", " a b\x00"]
    _, table = build(tmp_path, {"text": texts, "label": labels, "fold": ["x", None, "", "x", "y"]}, split="fold")
    assert table.texts == texts
    assert table.labels.tolist() == labels
    assert table.ids == ["0", "1", "2", "3", "4"]
    assert set(table.subsets) == {"all"}
    assert table.splits == ["x", None, None, "x", "y"]
    written = pq.ParquetFile(tmp_path / "d.parquet").schema_arrow
    assert written.equals(examples.schema("text"), check_metadata=True)


def test_the_same_source_gives_the_same_bytes(tmp_path):
    written = []
    for _ in range(2):
        build(tmp_path, two_classes(5000), max_examples=3000)
        written.append([(tmp_path / name).read_bytes() for name in ("d.parquet", "d.json")])
    assert written[0] == written[1]


def test_a_table_of_several_row_groups_is_written_and_read_whole(tmp_path):
    columns = two_classes(2 * datasets.ROWS_PER_GROUP + 1)
    _, table = build(tmp_path, columns)
    assert table.texts == columns["text"]
    assert table.labels.tolist() == columns["label"]
    assert table.groups.tolist() == list(range(len(table)))
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 3


def test_the_hash_is_of_the_examples_and_not_of_the_file_they_came_in(tmp_path):
    columns = {"text": ["a, b", "c\nd", "é", "f"], "label": ["1", "0", "1", "0"], "lang": ["de", "en", "en", "de"]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    record, _ = build(tmp_path, columns, subset="lang")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "t.jsonl").write_text(lines)
    other, _ = build_from({"file": str(tmp_path / "t.jsonl")}, tmp_path, subset="lang")
    (tmp_path / "t.csv").write_text('text,label,lang\n"a, b",1,de\n"c\nd",0,en\né,1,en\nf,0,de\n')
    third, _ = build_from({"file": str(tmp_path / "t.csv")}, tmp_path, subset="lang")
    assert record["sha256"] == other["sha256"] == third["sha256"]
    assert other["source_sha256"] == hashlib.sha256(lines.encode()).hexdigest()

    plain = hashlib.sha256()
    for number, row in enumerate(rows):
        values = [str(number), row["text"], row["label"], row["lang"], None, number]
        plain.update(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    assert record["sha256"] == plain.hexdigest()


@pytest.mark.parametrize("column", ["text", "label", "id", "lang", "fold", "pair"])
def test_the_hash_sees_a_change_in_any_column(tmp_path, column):
    columns = two_classes(6)
    columns |= {"id": list("pqrstu"), "lang": list("xxyyxy"), "fold": list("mmmnnm"), "pair": list("112313")}
    keys = {"id": "id", "subset": "lang", "split": "fold", "group": "pair"}
    before, _ = build(tmp_path, columns, **keys)
    # The last two change places, which leaves two of each class and subset.
    columns[column] = [*columns[column][:-2], columns[column][-1], columns[column][-2]]
    after, _ = build(tmp_path, columns, **keys)
    assert before["sha256"] != after["sha256"]


def test_the_record_says_what_the_table_is(tmp_path):
    columns = {
        "text": ["one", "three", "Ünï", "ONE", "six six", "seven"],
        "label": [1, 0, 1, 0, 1, 0],
        "lang": ["de", "de", "en", "en", "en", "en"],
    }
    record, _ = build(tmp_path, columns, subset="lang", title="A title")
    path = tmp_path / "source.parquet"
    assert record == {
        "source": {"file": str(path)},
        "revision": None,
        "source_sha256": files.sha256_file(path),
        "sha256": record["sha256"],
        "modality": "text",
        "n_rows": 6,
        "exclusions": {},
        "drawn": None,
        "n_examples": 6,
        "n_groups": 5,
        "labels": {"1": 3, "0": 3},
        "subsets": {"de": 2, "en": 4},
        "labels_by_subset": {"de": {"0": 1, "1": 1}, "en": {"0": 2, "1": 2}},
        "duplicates": 1,
        "conflicting_duplicates": {"count": 2, "examples": ["0", "3"]},
        "characters": {"min": 3, "median": 4.0, "max": 7},
    }


def test_title_and_unused_seed_leave_no_trace(tmp_path):
    first, _ = build(tmp_path, two_classes(6), seed=1, title="One", max_examples=10)
    second, _ = build(tmp_path, two_classes(6), seed=2)
    assert first == second


# --- ids ---------------------------------------------------------------------------------------------------------------


def test_ids_of_the_source_are_kept(tmp_path):
    _, table = build(tmp_path, {**two_classes(4), "key": [7, 3, 9, 1]}, id="key")
    assert table.ids == ["7", "3", "9", "1"]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["a", "b", "c", "a"], "row 3: the id 'a' is already that of"),
        (["a", None, "c", "d"], "row 1: the id is missing"),
        (["a", "b", "", "d"], "row 2: the id is missing"),
    ],
)
def test_a_repeated_or_missing_id_is_refused_with_its_row(tmp_path, ids, words):
    assert words in refusal(tmp_path, {**two_classes(4), "key": ids}, id="key")


def test_an_id_repeated_by_a_row_that_is_left_out_is_still_refused(tmp_path):
    columns = {"text": ["a", "b", "c", ""], "label": list("xyxy"), "key": list("1232")}
    assert "'2' is already" in refusal(tmp_path, columns, id="key")


# --- what is left out ----------------------------------------------------------------------------------------------------


def test_each_row_that_is_left_out_is_counted_under_one_reason_and_named(tmp_path):
    columns = {
        "text": ["a", "b", None, "", " \u2003\n", "c", "d", "e", "f", None, "g"],
        "label": ["x", "y", "x", "x", "y", None, " ", "lone", "x", None, "y"],
        "lang": ["l", "l", "l", "l", "l", "l", "l", "l", "", "l", None],
    }
    columns = {name: [*values, *values[:2]] for name, values in columns.items()}
    columns["text"][-2:] = ["h", "i"]
    record, table = build(tmp_path, columns, subset="lang")
    assert record["exclusions"] == {
        "missing text": {"count": 2, "examples": ["2", "9"]},
        "empty text": {"count": 2, "examples": ["3", "4"]},
        "missing label": {"count": 2, "examples": ["5", "6"]},
        "missing subset": {"count": 2, "examples": ["8", "10"]},
        "class with one member": {"count": 1, "examples": ["7"]},
    }
    assert table.ids == ["0", "1", "11", "12"]
    assert record["n_rows"] - sum(found["count"] for found in record["exclusions"].values()) == len(table)


def test_at_most_twenty_examples_are_named(tmp_path):
    columns = two_classes(50)
    columns["text"][:30] = [""] * 30
    record, _ = build(tmp_path, columns)
    assert record["exclusions"]["empty text"]["count"] == 30
    assert record["exclusions"]["empty text"]["examples"] == [str(i) for i in range(20)]


def test_a_class_is_lone_if_its_other_members_are_left_out(tmp_path):
    columns = {"text": ["a", "b", "c", "d", "e", ""], "label": list("xxyyzz")}
    record, table = build(tmp_path, columns)
    assert record["exclusions"]["class with one member"] == {"count": 1, "examples": ["4"]}
    assert set(table.labels) == {"x", "y"}


def test_fewer_than_two_classes_are_refused_with_the_reasons(tmp_path):
    message = refusal(tmp_path, {"text": ["a", "b", "c", ""], "label": ["x", "x", "y", "y"]})
    assert message.startswith("datasets.d.label: only the class 'x' is left; of 4 rows these are left out: ")
    assert "1 empty text, 1 class with one member" in message


def test_nothing_left_is_refused_with_the_reasons(tmp_path):
    message = refusal(tmp_path, {"text": ["a", "b", "c"], "label": ["x", "y", "z"]})
    assert "no example is left; of 3 rows these are left out: 3 class with one member" in message


@pytest.mark.parametrize("role", ["label", "subset"])
def test_values_that_differ_in_outer_white_space_alone_are_refused(tmp_path, role):
    columns = {"text": list("abcdef"), "label": list("xxxyyy"), "lang": list("llllll")}
    columns["label" if role == "label" else "lang"][0] = "x " if role == "label" else "\tl"
    assert refusal(tmp_path, columns, subset="lang").startswith(f"datasets.d.{role}: ")


def test_a_subset_may_not_take_the_name_of_the_whole(tmp_path):
    columns = {**two_classes(4), "lang": ["all", "en", "all", "en"]}
    assert refusal(tmp_path, columns, subset="lang").startswith("datasets.d.subset: ")


# --- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("café", "cafe\u0301"),
        ("a\u00a0b\r\n", " a b"),
        ("①２", "12"),
        ("İ", "i\u0307"),
        ("ΐ", "ΐ".upper()),
        ("ΌΣ", "όσ"),
    ],
)
def test_texts_that_read_the_same_have_one_reading(one, other):
    assert groups.reading(one) == groups.reading(other)


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("a.", "a"), ("a\x00", "a"), ("é", "e"), ("l", "I")])
def test_texts_that_read_differently_have_two_readings(one, other):
    assert groups.reading(one) != groups.reading(other)


def test_a_reading_is_its_own_reading_and_empty_for_blank_text_alone():
    generator = np.random.default_rng(0)
    for limits in ((0xD800, 0xD800, 0xD800), (0x2100, 0x600, 0x300), (0x80, 0x80, 0x80), (0x2100, 0x21, 0x21)):
        for codes in generator.integers(0, limits, size=(5000, 3)):
            text = "".join(map(chr, codes))
            once = groups.reading(text)
            assert groups.reading(once) == once
            assert bool(once) == bool(text.strip())


def test_duplicates_share_a_group_and_join_the_groups_of_the_user(tmp_path):
    columns = {
        "text": ["one", "two", "ONE ", "four", "five", "six"],
        "label": list("ababab"),
        "pair": ["p", "q", "q", None, "", "r"],
    }
    record, table = build(tmp_path, columns, group="pair")
    assert table.groups.tolist() == [0, 0, 0, 1, 2, 3]
    assert record["n_groups"] == 4


def slow_groups(memberships):
    """Join by walking from each example to every example that shares a code with it."""
    sharing = defaultdict(list)
    for number, codes in enumerate(memberships):
        for row, code in enumerate(codes):
            if code >= 0:
                sharing[number, code].append(row)
    group, found = {}, 0
    for start in range(len(memberships[0])):
        if start in group:
            continue
        waiting = [start]
        while waiting:
            row = waiting.pop()
            if row in group:
                continue
            group[row] = found
            for number, codes in enumerate(memberships):
                waiting.extend(sharing.get((number, codes[row]), []))
        found += 1
    return [group[row] for row in range(len(memberships[0]))]


def test_groups_agree_with_a_plain_walk():
    generator = np.random.default_rng(0)
    sizes = Counter()
    for _ in range(200):
        n = int(generator.integers(1, 60))
        memberships = [generator.integers(-1, int(generator.integers(1, 2 * n + 1)), size=n) for _ in range(2)]
        found = groups.grouped(memberships).tolist()
        assert found == slow_groups(memberships)
        sizes[max(Counter(found).values())] += 1
    assert len(sizes) > 10


def test_duplicates_with_two_labels_are_counted_and_named(tmp_path):
    columns = {"text": ["a", "A", "a ", "b", "b", "c"], "label": list("xyxyyx"), "key": list("123456")}
    record, table = build(tmp_path, columns, id="key")
    assert record["duplicates"] == 3
    assert record["conflicting_duplicates"] == {"count": 3, "examples": ["1", "2", "3"]}
    assert table.groups.tolist() == [0, 0, 0, 1, 1, 2]


def test_one_group_of_everything_is_refused(tmp_path):
    columns = {**two_classes(4), "pair": ["p"] * 4}
    assert refusal(tmp_path, columns, group="pair").startswith("datasets.d.group: all examples belong to one group")
    same = {"text": ["a"] * 4, "label": list("xyxy")}
    assert refusal(tmp_path, same).startswith("datasets.d.text: all examples belong to one group")


# --- drawing -----------------------------------------------------------------------------------------------------------


def parallel(meanings, languages="abcde"):
    rows = [
        (f"{language}{meaning}", "yn"[meaning % 2], language, meaning)
        for meaning in range(meanings)
        for language in languages
    ]
    return dict(zip(("text", "label", "lang", "meaning"), map(list, zip(*rows, strict=True)), strict=True))


def test_max_examples_keeps_proportions_and_is_recorded(tmp_path):
    columns = {
        "text": [f"text {i}" for i in range(900)],
        "label": ["aab"[i % 3] for i in range(900)],
        "lang": ["xxxy"[i % 4] for i in range(900)],
    }
    record, table = build(tmp_path, columns, subset="lang", max_examples=90, seed=3)
    assert record["drawn"] == {"max_examples": 90, "of": 900, "seed": 3}
    assert record["labels"] == {"a": 60, "b": 30}
    assert abs(record["subsets"]["x"] - 67.5) <= 1
    assert record["n_rows"] == 900
    numbers = [int(number) for number in table.ids]
    assert numbers == sorted(numbers)
    assert table.groups.tolist() == list(range(90))


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_order_of_rows(tmp_path):
    columns = two_classes(200)
    turned = {name: values[::-1] for name, values in columns.items()}
    drawn = [
        set(build(tmp_path, rows, max_examples=50, seed=seed)[1].texts)
        for rows, seed in ((columns, 1), (turned, 1), (columns, 2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_translations_are_drawn_together(tmp_path):
    record, table = build(tmp_path, parallel(60), subset="lang", group="meaning", max_examples=100)
    assert record["n_examples"] == 100
    assert record["n_groups"] == 20
    assert set(Counter(table.groups.tolist()).values()) == {5}
    assert record["labels_by_subset"] == {language: {"n": 10, "y": 10} for language in "abcde"}


def test_examples_that_are_not_drawn_still_join_groups(tmp_path):
    # Every pair of neighbours is a group of the user's, and all groups hang together through repeated texts.
    columns = {
        "text": ["t0", "t1", "t1", "t2", *(f"u{i}" for i in range(40))],
        "label": ["a", "b"] * 22,
        "pair": [0, 0, 1, 1, *range(2, 42)],
    }
    for seed in range(5):
        _, table = build(tmp_path, columns, group="pair", max_examples=20, seed=seed)
        assert len({"0", "1", "2", "3"} & set(table.ids)) in (0, 4)


def test_too_small_a_draw_is_refused(tmp_path):
    many = {"text": [f"t{i}" for i in range(24)], "label": [str(i % 12) for i in range(24)]}
    message = refusal(tmp_path, many, max_examples=10)
    assert message.startswith("datasets.d.max_examples: 10 examples cannot hold two of each class")
    assert "allow at least 24" in message
    message = refusal(tmp_path, parallel(10, "abcdefgh"), group="meaning", max_examples=10)
    assert "two of each class, in whole groups, are 16 examples" in message


# --- images ------------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_becomes_a_table_of_encoded_bytes(tmp_path):
    contents = {}
    for number, (label, format_) in enumerate(
        [("cat", "PNG"), ("cat", "BMP"), ("cat", "PNG"), ("dog", "PNG"), ("dog", "PNG")]
    ):
        content = io.BytesIO()
        # The first two are one picture.
        Image.new("RGB", (3, 3), (max(number, 1), 0, 0)).save(content, format_)
        contents[f"{label}/{number}.{format_.lower()}"] = content.getvalue()
    contents |= {"dog/5.png": b"broken", "loose.png": contents["cat/0.png"]}
    for name, content in contents.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    record, table = build_from({"images": str(tmp_path / "images")}, tmp_path)
    assert table.ids == ["cat/0.png", "cat/1.bmp", "cat/2.png", "dog/3.png", "dog/4.png"]
    assert table.texts is None
    assert table.images == [contents[name] for name in table.ids]
    assert table.groups.tolist() == [0, 0, 1, 2, 3]
    assert table.labels.tolist() == ["cat"] * 3 + ["dog"] * 2
    assert (record["modality"], record["characters"], record["duplicates"]) == ("image", None, 1)
    assert record["exclusions"] == {
        "undecodable image": {"count": 1, "examples": ["dog/5.png"]},
        "missing label": {"count": 1, "examples": ["loose.png"]},
    }
    plain = hashlib.sha256()
    for name, label, group in zip(table.ids, table.labels, table.groups.tolist(), strict=True):
        values = [name, hashlib.sha256(contents[name]).hexdigest(), label, "all", None, group]
        plain.update(json.dumps(values, separators=(",", ":")).encode() + b"\n")
    assert record["sha256"] == plain.hexdigest()


# --- the demo ------------------------------------------------------------------------------------------------------------


def test_a_demo_dataset_is_built_from_the_generated_table(tmp_path):
    pq.write_table(pa.table(two_classes(6)), tmp_path / "generated.parquet")
    record = datasets.build(
        "d",
        entry({"demo": "requests"}),
        tmp_path / "d.parquet",
        tmp_path / "d.json",
        seed=0,
        generated=tmp_path / "generated.parquet",
    )
    assert record["source"] == {"demo": "requests"}
    assert record["n_examples"] == 6
    assert str(tmp_path) not in (tmp_path / "d.json").read_text()


# --- further columns, templates, no labels, images in a table ---------------------------------------------------------


def test_further_columns_are_kept_as_text_and_are_part_of_the_hash(tmp_path):
    columns = two_classes(4) | {"sol1": ["a", None, "", "x"], "n": [1, 2, 3, 4]}
    record, table = build(tmp_path, columns, columns=["sol1", "n"])
    assert table.columns == {"sol1": ["a", None, "", "x"], "n": ["1", "2", "3", "4"]}
    without, plain = build(tmp_path, columns)
    assert plain.columns == {}
    assert without["sha256"] != record["sha256"]


def test_a_text_may_be_put_together_from_columns_and_one_that_lacks_any_is_left_out(tmp_path):
    columns = {"goal": ["boil water", None, "sing"], "n": [1, 2, 3], "label": list("aab"), "x": list("xyz")}
    columns = {name: values * 2 for name, values in columns.items()}
    record, table = build(tmp_path, columns, text="Q{n}: {goal}?")
    assert table.texts == ["Q1: boil water?", "Q3: sing?"] * 2
    assert record["exclusions"] == {"missing text": {"count": 2, "examples": ["1", "4"]}}


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"text": "{nothing}"}, "datasets.d.text.nothing: there is no column 'nothing'"),
        ({"columns": ["nothing"]}, "datasets.d.columns.nothing: there is no column 'nothing'"),
        ({"text": "{text"}, "datasets.d.text: '{text' is no template"),
    ],
)
def test_a_column_that_a_template_or_a_behaviour_needs_is_named(tmp_path, keys, wrong):
    assert refusal(tmp_path, two_classes(4), **keys).startswith(wrong)


def test_a_dataset_may_have_no_labels(tmp_path):
    record, table = build(tmp_path, {"text": ["a", "b", "", "a"]}, label=None)
    assert table.labels.tolist() == ["", "", ""]
    assert (record["labels"], record["n_examples"], record["n_groups"]) == ({}, 3, 2)


def test_images_in_a_column_are_judged_as_those_in_files(tmp_path):
    encoded = []
    for shade in range(4):
        content = io.BytesIO()
        Image.new("L", (2, 2), shade).save(content, "PNG")
        encoded.append(content.getvalue())
    encoded.append(b"no picture")
    columns = {"shown": [*encoded, None], "label": list("aabbaa")}
    record, table = build(tmp_path, columns, image="shown")
    assert (table.texts, table.images) == (None, encoded[:4])
    assert record["exclusions"] == {"undecodable image": {"count": 2, "examples": ["4", "5"]}}
    # As Hugging Face datasets writes images.
    pairs = pa.array([{"bytes": image, "path": None} for image in [*encoded, b""]])
    _, other = build(tmp_path, {"shown": pairs, "label": list("aabbaa")}, image="shown")
    assert other.images == table.images


@pytest.mark.parametrize(("column", "kind"), [(["a", "b"], "string"), ([1, 2], "int64")])
def test_a_column_that_holds_no_images_is_named(tmp_path, column, kind):
    message = refusal(tmp_path, {"shown": column, "label": ["a", "b"]}, image="shown")
    assert message.startswith(f"datasets.d.image: column 'shown' holds {kind}, not encoded images")


def test_a_table_of_text_holds_no_images(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("shown,label\nx,a\n")
    with pytest.raises(UserError, match=r"datasets\.d\.image: a \.csv file holds no images"):
        build_from({"file": str(path)}, tmp_path, image="shown")
