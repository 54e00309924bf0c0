import errno
import hashlib
import io
import json
import shutil
import struct
import zlib
from types import SimpleNamespace

import datasets as hugging_face
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RevisionNotFoundError
from PIL import Image

from tessera import sources
from tessera.errors import UserError

REVISION = "a" * 40
TOKEN = "hf_abcDEF123"  # noqa: S105 - a made-up one


def entry(source, **keys):
    plain = {"text": "text", "label": "label", "id": None, "subset": None, "split": None, "group": None}
    return {**plain, "max_examples": None, "title": None, "source": source, **keys}


def values(raw):
    return {role: column.to_pylist() for role, column in raw.columns.items()}


def labelled(labels, names=("no", "yes"), **columns):
    rows = {"text": [f"text {i}" for i in range(len(labels))], "label": labels, **columns}
    features = {name: hugging_face.Value("string") for name in rows}
    features["label"] = hugging_face.ClassLabel(names=list(names))
    return hugging_face.Dataset.from_dict(rows, features=hugging_face.Features(features))


def refusal(source, **keys):
    with pytest.raises(UserError) as caught:
        sources.read("d", entry(source, **keys))
    return str(caught.value)


# --- files and the demo ------------------------------------------------------------------------------------------------


def test_text_and_label_cannot_be_one_column():
    assert refusal({"file": "t.csv"}, label="text").startswith("datasets.d.label: ")


def test_only_the_columns_of_the_config_are_read_and_the_file_is_hashed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label,lang,other\na,x,en,1\n")
    raw = sources.read("d", entry({"file": str(path)}, subset="lang"))
    assert values(raw) == {"text": ["a"], "label": ["x"], "subset": ["en"]}
    assert (raw.rows, raw.revision, raw.images) == (1, None, None)
    assert raw.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_demo_source_reads_the_generated_table(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "library": ["numpy"]}), tmp_path / "g.parquet")
    raw = sources.read("d", entry({"demo": "docstrings"}, label="library"), tmp_path / "g.parquet")
    assert values(raw) == {"text": ["a"], "label": ["numpy"]}
    with pytest.raises(ValueError, match="no generated table"):
        sources.read("d", entry({"demo": "docstrings"}))


# --- saved datasets ----------------------------------------------------------------------------------------------------


def test_a_saved_dataset_is_read_with_its_class_names(tmp_path):
    labelled([1, 0, -1]).save_to_disk(tmp_path / "s")
    raw = sources.read("d", entry({"saved": str(tmp_path / "s")}))
    assert values(raw) == {"text": ["text 0", "text 1", "text 2"], "label": ["yes", "no", None]}
    assert raw.place(2) == f"{tmp_path / 's'}, row 2"


def test_saved_splits_are_joined_in_their_own_order_with_their_names(tmp_path):
    parts = hugging_face.DatasetDict({"train": labelled([0, 1]), "dev": labelled([1], names=("yes", "no"))})
    parts.save_to_disk(tmp_path / "s")
    raw = sources.read("d", entry({"saved": str(tmp_path / "s")}))
    assert values(raw)["split"] == ["train", "train", "dev"]
    assert values(raw)["label"] == ["no", "yes", "no"]
    assert raw.place(2) == f"{tmp_path / 's'}, split dev, row 0"


def test_a_column_named_as_split_wins_over_the_names_of_splits(tmp_path):
    parts = hugging_face.DatasetDict({"train": labelled([0, 1], fold=["f1", "f2"])})
    parts.save_to_disk(tmp_path / "s")
    assert values(sources.read("d", entry({"saved": str(tmp_path / "s")}, split="fold")))["split"] == ["f1", "f2"]


def test_a_selection_of_a_saved_dataset_is_read_as_selected(tmp_path):
    labelled([0, 1, 0, 1]).select([3, 0]).save_to_disk(tmp_path / "s")
    assert values(sources.read("d", entry({"saved": str(tmp_path / "s")})))["text"] == ["text 3", "text 0"]


def test_a_cache_left_in_the_folder_does_not_change_its_hash_and_an_example_does(tmp_path):
    hashes = []
    for labels, cache in (([0, 1], False), ([0, 1], True), ([1, 1], False)):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        labelled(labels).save_to_disk(tmp_path / "s")
        # The library gives every saved dataset a fingerprint, which differs where the data does.
        if cache:
            (tmp_path / "s" / "cache-0123.arrow").write_bytes(b"x")
        hashes.append(sources.read("d", entry({"saved": str(tmp_path / "s")})).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_folders_that_are_no_saved_dataset_are_refused_by_name(tmp_path):
    folder = tmp_path / "s"
    assert "there is no such folder" in refusal({"saved": str(folder)})
    folder.mkdir()
    assert f"{folder}: this is not a complete folder" in refusal({"saved": str(folder)})
    labelled([0, 1]).save_to_disk(folder)
    data = next(folder.glob("*.arrow"))
    whole = data.read_bytes()
    data.write_bytes(b"damaged" + whole[100:])
    assert "not readable as a saved dataset" in refusal({"saved": str(folder)})
    data.unlink()
    assert "not a complete folder" in refusal({"saved": str(folder)})
    data.write_bytes(whole)
    (folder / "dataset_info.json").write_text("{")
    assert "not readable as a saved dataset" in refusal({"saved": str(folder)})


def test_splits_with_different_kinds_of_labels_are_refused(tmp_path):
    number = hugging_face.Dataset.from_dict({"text": ["a"], "label": [1]})
    hugging_face.DatasetDict({"train": labelled([0, 1]), "test": number}).save_to_disk(tmp_path / "s")
    message = refusal({"saved": str(tmp_path / "s")})
    assert message.startswith("datasets.d.label: 'label' is not the same in all splits")
    assert "a number at" in message


def test_a_missing_column_in_one_split_is_refused(tmp_path):
    hugging_face.DatasetDict({"train": labelled([0]), "test": labelled([0]).remove_columns("label")}).save_to_disk(
        tmp_path / "s"
    )
    assert "there is no column 'label'" in refusal({"saved": str(tmp_path / "s")})


# --- the Hub -----------------------------------------------------------------------------------------------------------


def hub(**keys):
    none = {"config": None, "configs": None, "subset": None}
    return {"hub": "owner/name", "revision": REVISION, **none, "splits": ["train"], **keys}


def hub_gives(monkeypatch, parts):
    """Put a fake in the place of the library's `load_dataset`, which has no files to fetch; returns the list of its calls."""
    calls = []

    def load_dataset(path, *, name, split, revision):
        calls.append((path, name, split, revision))
        if isinstance(parts[split], Exception):
            raise parts[split]
        return parts[split]

    def load_dataset_builder(path, *, name, revision):
        return SimpleNamespace(config=SimpleNamespace(data_files=None))

    monkeypatch.setattr(hugging_face, "load_dataset", load_dataset)
    monkeypatch.setattr(hugging_face, "load_dataset_builder", load_dataset_builder)
    return calls


def test_splits_of_the_hub_are_read_at_the_revision_and_joined_in_the_order_given(monkeypatch):
    calls = hub_gives(monkeypatch, {"train": labelled([0, 1]), "test": labelled([1])})
    raw = sources.read("d", entry(hub(splits=["test", "train"], config="en")))
    assert calls == [("owner/name", "en", "test", REVISION), ("owner/name", "en", "train", REVISION)]
    assert values(raw)["split"] == ["test", "train", "train"]
    assert values(raw)["label"] == ["yes", "no", "yes"]
    assert (raw.revision, raw.sha256, raw.place(1)) == (REVISION, None, "owner/name, split train, row 0")


def test_splits_that_are_languages_become_subsets(monkeypatch):
    hub_gives(monkeypatch, {"en": labelled([0, 1]), "de": labelled([1])})
    raw = sources.read("d", entry(hub(splits=["en", "de"], subset="split")))
    assert values(raw)["subset"] == values(raw)["split"] == ["en", "en", "de"]
    assert raw.place(2) == "owner/name, split de, row 0"


def test_configurations_that_are_languages_become_subsets_of_one_dataset(monkeypatch):
    calls = hub_gives(monkeypatch, {"test": labelled([0, 1]), "dev": labelled([1])})
    source = hub(configs=["german", "english"], splits=["test", "dev"], subset="config")
    raw = sources.read("d", entry(source))
    assert [call[1:3] for call in calls] == [(c, s) for c in ("german", "english") for s in ("test", "dev")]
    assert values(raw)["subset"] == ["german"] * 3 + ["english"] * 3
    assert values(raw)["split"] == ["test", "test", "dev"] * 2
    assert raw.place(5) == "owner/name, config english, split dev, row 0"


def test_configurations_are_joined_without_subsets_where_none_are_asked_for(monkeypatch):
    hub_gives(monkeypatch, {"train": labelled([0])})
    raw = sources.read("d", entry(hub(configs=["german", "english"])))
    assert "subset" not in raw.columns
    assert raw.rows == 2


def test_configurations_of_a_real_folder_are_read_by_name(tmp_path, monkeypatch):
    """Through the library itself, from a folder laid out as a repository with a configuration for each language."""
    names = {"english": "train", "german": "train"}
    lines = ["---", "configs:"]
    for name, split in names.items():
        (tmp_path / "repo" / name).mkdir(parents=True)
        (tmp_path / "repo" / name / f"{split}.csv").write_text(f"text,label\nin {name},yes\nalso {name},no\n")
        lines += [f"- config_name: {name}", f"  data_files: {name}/{split}.csv"]
    (tmp_path / "repo" / "README.md").write_text("\n".join([*lines, "---", ""]))
    real = hugging_face.load_dataset
    cache = str(tmp_path / "cache")
    monkeypatch.setattr(
        hugging_face,
        "load_dataset",
        lambda path, *, name, split, revision: real(str(tmp_path / "repo"), name, split=split, cache_dir=cache),
    )
    # A folder has neither a revision nor files to fetch.
    monkeypatch.setattr(sources, "_check_revision", lambda *given: None)
    monkeypatch.setattr(sources, "_fetch_files", lambda *given: None)
    raw = sources.read("d", entry(hub(configs=list(names), subset="config")))
    assert values(raw)["subset"] == ["english", "english", "german", "german"]
    assert values(raw)["text"] == ["in english", "also english", "in german", "also german"]


def test_a_split_without_rows_is_refused(monkeypatch):
    hub_gives(monkeypatch, {"train": labelled([0, 1]).select([])})
    assert refusal(hub()).startswith("owner/name, split train: there are no rows")


def answered(kind, message):
    return kind(message, response=SimpleNamespace(headers={}, request=None, status_code=403))


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "key", "words"),
    [
        (
            DatasetNotFoundError("Dataset 'owner/name' doesn't exist on the Hub or cannot be accessed."),
            "hub",
            "HF_TOKEN",
        ),
        (DatasetNotFoundError("Dataset 'owner/name' is a gated dataset on the Hub."), "hub", "accept its terms"),
        (
            caused(DatasetNotFoundError("You need access"), answered(GatedRepoError, f"403 for token {TOKEN}")),
            "hub",
            "accept its terms",
        ),
        (
            caused(DatasetNotFoundError("Gone."), answered(RevisionNotFoundError, "404")),
            "revision",
            "has no such revision",
        ),
        (DatasetNotFoundError("Revision 'aaa' doesn't exist for dataset 'x'."), "revision", "the hash of a commit"),
        (ConnectionError("Couldn't reach 'owner/name' on the Hub (OfflineModeIsEnabled)"), "hub", "HF_HUB_OFFLINE"),
        (LocalEntryNotFoundError("not in the cache"), "hub", "HF_HUB_OFFLINE"),
        (ValueError("Unknown split \"train\". Should be one of ['test']."), "splits", "one of ['test']"),
        (ValueError("BuilderConfig 'x' not found. Available: ['en', 'de']"), "config", "['en', 'de']"),
        (RuntimeError("Dataset scripts are no longer supported, but found name.py"), "hub", "no longer supported"),
        (KeyError("something\nnobody has thought of"), "hub", "something\\nnobody"),
    ],
)
def test_what_the_hub_answers_becomes_one_line_about_one_key(monkeypatch, error, key, words):
    hub_gives(monkeypatch, {"train": error})
    message = refusal(hub())
    assert message.startswith(f"datasets.d.source.{key}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "told",
    [
        f"401 for https://user:secret-password@huggingface.co/api?X-Signature=secret-signature {TOKEN}",
        "header Authorization: Bearer secret-bearer was refused",
        "the token secret-of-another-form does not do",
        "x" * 290 + " " + TOKEN,
    ],
)
def test_no_credential_reaches_the_message_or_the_traceback(monkeypatch, told):
    monkeypatch.setenv("HF_TOKEN", "secret-of-another-form")
    hub_gives(monkeypatch, {"train": OSError(told)})
    with pytest.raises(UserError) as caught:
        sources.read("d", entry(hub()))
    assert "secret" not in str(caught.value)
    assert "abcDEF" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_full_disk_is_not_blamed_on_the_hub(monkeypatch):
    hub_gives(monkeypatch, {"train": OSError(errno.ENOSPC, "No space left on device")})
    with pytest.raises(OSError, match="No space left"):
        sources.read("d", entry(hub()))


@pytest.mark.parametrize(("folder", "fine"), [(REVISION, True), ("b" * 40, False)])
def test_a_cached_copy_is_used_only_if_it_is_of_the_revision(monkeypatch, tmp_path, folder, fine):
    labelled([0, 1]).save_to_disk(tmp_path / folder)
    hub_gives(monkeypatch, {"train": hugging_face.load_from_disk(str(tmp_path / folder))})
    if fine:
        assert sources.read("d", entry(hub())).rows == 2
    else:
        assert refusal(hub()).startswith("datasets.d.source.revision: the Hub could not be asked")


@pytest.mark.parametrize("name", ["csv", "hf://datasets/a/b", "a/b/c", "../a", "s3://bucket", "/etc/passwd"])
def test_what_is_no_repository_never_reaches_the_library(monkeypatch, name):
    calls = hub_gives(monkeypatch, {"train": labelled([0])})
    assert refusal(hub(hub=name)).startswith("datasets.d.source.hub: ")
    assert calls == []


def test_a_folder_that_would_be_read_in_place_of_the_repository_is_refused(monkeypatch, tmp_path):
    calls = hub_gives(monkeypatch, {"train": labelled([0])})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert "hides the repository" in refusal(hub())
    assert calls == []


def test_a_split_listed_twice_is_refused(monkeypatch):
    hub_gives(monkeypatch, {"train": labelled([0])})
    assert refusal(hub(splits=["train", "train"])).startswith("datasets.d.source.splits: ")


# --- folders of images -------------------------------------------------------------------------------------------------


def picture(seed=0, format_="PNG", size=(4, 3)):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, format_)
    return content.getvalue()


def image_folder(tmp_path, files):
    for name, content in files.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {"images": str(tmp_path / "images")}


def png_of_claimed_size(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\x00" * 100)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_images_are_labelled_by_folder_and_sorted(tmp_path):
    files = {"dog/b.png": picture(1), "cat/z.png": picture(2), "cat/a.jpg": picture(3, "JPEG"), "cat/.hidden": b"x"}
    raw = sources.read("d", entry(image_folder(tmp_path, {**files, ".DS_Store": b"x"})))
    assert values(raw) == {"id": ["cat/a.jpg", "cat/z.png", "dog/b.png"], "label": ["cat", "cat", "dog"]}
    assert [raw.images.encoded(row) for row in range(3)] == [files[name] for name in values(raw)["id"]]
    assert raw.images.flaws == {}
    assert len(set(raw.images.digests)) == 3


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (b"", "undecodable image"),
        (b"words", "undecodable image"),
        (picture()[:-20], "undecodable image"),
        (picture(size=(64, 64))[:200] + bytes(40) + picture(size=(64, 64))[240:], "undecodable image"),
        (picture(format_="JPEG", size=(64, 64))[:700], "undecodable image"),
        (picture(format_="EPS"), "undecodable image"),
        (picture(format_="PCX"), "undecodable image"),
        (png_of_claimed_size(10, 10), "undecodable image"),
        (png_of_claimed_size(0, 10), "undecodable image"),
        (png_of_claimed_size(10_000, 10_000), "oversized image"),
        (png_of_claimed_size(100_000, 100_000), "oversized image"),
    ],
)
def test_an_image_that_cannot_be_shown_is_marked_with_the_reason(content, flaw):
    assert sources.look(content) == (b"", flaw)


@pytest.mark.parametrize("format_", sources.IMAGE_FORMATS)
def test_every_format_that_is_let_in_is_decoded(format_):
    digest, flaw = sources.look(picture(format_=format_))
    assert flaw is None
    assert len(digest) == 16


def test_two_encodings_of_one_picture_have_one_digest_and_another_shape_has_another():
    assert sources.look(picture(5, "PNG")) == sources.look(picture(5, "BMP"))
    flat = [Image.new("RGB", size, (1, 2, 3)) for size in ((2, 6), (6, 2))]
    contents = []
    for image in flat:
        contents.append(io.BytesIO())
        image.save(contents[-1], "PNG")
    assert sources.look(contents[0].getvalue()) != sources.look(contents[1].getvalue())


def test_a_file_beside_the_label_folders_has_no_label(tmp_path):
    source = image_folder(tmp_path, {"cat/a.png": picture(), "b.png": picture(1), "readme.txt": b"x"})
    raw = sources.read("d", entry(source))
    assert dict(zip(*values(raw).values(), strict=True)) == {"b.png": None, "cat/a.png": "cat", "readme.txt": None}
    assert raw.images.flaws == {2: "undecodable image"}


def test_folders_of_another_shape_are_refused_by_name(tmp_path):
    source = image_folder(tmp_path, {"train/cat/a.png": picture()})
    assert "train/cat: a label's folder holds only files" in refusal(source)
    shutil.rmtree(tmp_path / "images")
    assert "there is no such folder" in refusal(source)
    (tmp_path / "images").mkdir()
    assert "the folder is empty" in refusal(source)
    (tmp_path / "images" / "cat").mkdir()
    assert "images/cat: the folder of this label is empty" in refusal(source)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path):
    source = image_folder(tmp_path, {"cat/a.png": picture(), "cat/\udcff.png": picture()})
    assert r"'\udcff.png' is not UTF-8" in refusal(source)


@pytest.mark.parametrize("role", ["id", "subset", "split", "group"])
def test_a_folder_of_images_takes_no_columns(tmp_path, role):
    message = refusal(image_folder(tmp_path, {"cat/a.png": picture()}), **{role: "column"})
    assert message.startswith(f"datasets.d.{role}: ")


def test_the_hash_of_an_image_folder_follows_names_and_bytes(tmp_path):
    hashes = set()
    for files in ({"a/1.png": picture()}, {"a/2.png": picture()}, {"a/2.png": picture(1)}):
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
        hashes.add(json.dumps(sources.read("d", entry(image_folder(tmp_path, files))).sha256))
    assert len(hashes) == 3
