"""Leaks and shortcuts: what is planted is found and counted, and clean data are called fine."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from test_near_copies import WORDS, random_texts, similarities

from tessera import examples, groups, leakage, near_copies
from tessera.examples import Table
from tessera.metrics import macro_f1
from tessera.splits import paper_splits, strict_splits

STRICT = {"seeds": 3, "test_size": 0.25, "inner_folds": 3, "c": [1.0]}


def table(texts, labels, groups=None, subsets=None, images=None):
    n = len(labels)
    return Table(
        [f"id-{row}" for row in range(n)],
        texts,
        images,
        np.array(labels, dtype=object),
        np.array(subsets if subsets is not None else ["all"] * n, dtype=object),
        [None] * n,
        np.arange(n) if groups is None else np.asarray(groups),
    )


def clean(n=240, seed=0, **columns):
    rng = np.random.default_rng(seed)
    return table(random_texts(n, rng), [f"label {row % 2}" for row in range(n)], **columns)


def checks(data, protocols=("paper", "strict")):
    return leakage.check(data, protocols=protocols, strict_settings=STRICT)["checks"]


def splits_of(data):
    codes = np.unique(data.labels.astype(str), return_inverse=True)[1]
    strict = strict_splits(codes, data.groups, seeds=3, test_size=0.25, inner_folds=3)
    return {"paper": paper_splits(codes, data.groups), "strict": strict}


def counted(data, alike):
    """By protocol and split, in plain Python: test examples with their like in training, of their label, of another."""
    found = {}
    for name, splits in splits_of(data).items():
        found[name] = []
        for split in splits:
            train, test = np.flatnonzero(split.train).tolist(), np.flatnonzero(split.test).tolist()
            met = [{bool(data.labels[a] == data.labels[b]) for b in train if alike(a, b)} for a in test]
            found[name].append(
                (len(test), sum(map(bool, met)), sum(True in m for m in met), sum(False in m for m in met))
            )
    return found


def counts_of(check):
    keys = ("test", "found", "same_label", "other_label")
    return {
        name: [tuple(split[key] for key in keys) for split in found["splits"]]
        for name, found in check["numbers"].items()
    }


# --- copies across the splits --------------------------------------------------------------------------------------


def with_copies(groups_hold, n=240, copies=60):
    """Copies that differ in case and white space alone, half with their label; in one group with their original or not."""
    data = clean(n)
    rng = np.random.default_rng(5)
    originals = rng.choice(n, copies, replace=False)
    texts = data.texts + [f" {data.texts[row].upper()}\t" for row in originals]
    labels = [*data.labels, *(data.labels[row if place % 2 else row - 1] for place, row in enumerate(originals))]
    groups = [*range(n), *(originals if groups_hold else range(n, n + copies))]
    return table(texts, labels, groups)


def test_planted_copies_are_counted_per_split_and_by_label():
    data = with_copies(groups_hold=False)
    keys = [leakage.folded(text) for text in data.texts]
    found = checks(data)["exact_duplicates"]
    assert counts_of(found) == counted(data, lambda a, b: keys[a] == keys[b])
    assert found["numbers"]["paper"]["splits"][0]["found"] > 10
    pairs = found["numbers"]["paper"]["examples"]
    place = {name: row for row, name in enumerate(data.ids)}
    (split,) = splits_of(data)["paper"]
    assert len(pairs) == leakage.SHOWN
    for pair in pairs:
        test, train = place[pair["test"]], place[pair["train"]]
        assert split.test[test]
        assert split.train[train]
        assert keys[test] == keys[train]


def test_copies_that_straddle_a_strict_split_are_a_fault():
    found = checks(with_copies(groups_hold=False, copies=4), protocols=("strict",))["exact_duplicates"]
    assert found["severity"] == "leak"
    assert "though these splits are meant to keep copies together" in found["reason"]


def test_copies_in_one_group_leak_under_the_papers_protocol_alone():
    found = checks(with_copies(groups_hold=True))["exact_duplicates"]
    assert found["severity"] == "leak"
    assert found["reason"].startswith("In the paper's split, ")
    assert all(split["found"] == 0 for split in found["numbers"]["strict"]["splits"])
    assert found["numbers"]["strict"]["examples"] == []


def test_planted_near_copies_are_counted_per_split_and_named():
    rng = np.random.default_rng(6)
    n, copies = 200, 50
    data = clean(n, seed=6)
    texts = data.texts + [data.texts[row] + " " + str(rng.choice(WORDS)) for row in range(copies)]
    data = table(texts, [*data.labels, *data.labels[:copies]])
    found = checks(data)
    assert found["exact_duplicates"]["severity"] == "fine"
    near = found["near_duplicates"]
    similarity = similarities(texts, 5, by_words=False)
    assert counts_of(near) == counted(data, lambda a, b: similarity[a, b] >= 0.8)
    assert near["severity"] == "leak"
    for pair in near["numbers"]["strict"]["examples"]:
        one, other = (int(pair[part].removeprefix("id-")) for part in ("test", "train"))
        assert abs(one - other) == n
        assert pair["similarity"] >= near_copies.SIMILAR


def test_few_copies_are_fine_more_are_worth_a_look():
    entries = {
        found: leakage._copied("t", "a copy", {"paper": {"splits": [{"seed": 42, "test": 500, "found": found}]}})
        for found in (0, 4, 5, 24, 25)
    }
    assert [entry["severity"] for entry in entries.values()] == ["fine", "fine", "look", "look", "leak"]


def test_nothing_is_found_in_clean_random_texts():
    data = clean(seed=7)
    record = leakage.check(data, protocols=["paper", "strict"], strict_settings=STRICT)
    assert record["severity"] == "fine"
    for name in ("exact_duplicates", "near_duplicates"):
        assert record["checks"][name]["reason"].startswith("No test example has")
        assert all(
            counts[1] == 0 for of_protocol in counts_of(record["checks"][name]).values() for counts in of_protocol
        )


@pytest.mark.parametrize("text", ["A  B\n", "ﬁ ① K", "ẞ ǅ", "İstanbul", "ͅΑ", "  x\x00y ", "漢字\u3000仮名", "e\u0301"])
def test_copies_are_what_the_dataset_stage_takes_for_the_same(text):
    assert leakage.folded(text) == groups.reading(text)


# --- shortcuts -----------------------------------------------------------------------------------------------------


def test_a_planted_keyword_is_named_and_is_a_leak():
    data = clean(seed=8)
    data.texts[:] = [
        text + " xylophone" * (label == "label 1") for text, label in zip(data.texts, data.labels, strict=True)
    ]
    found = checks(data)["keyword"]
    assert found["severity"] == "leak"
    assert found["numbers"] == {
        "word": "xylophone", "label": "label 1", "chosen": 3, "of": 3,
        "macro_f1": 1.0, "best": 1.0, "way": 1.0, "nothing": 0.5,
    }  # fmt: skip
    assert "'xylophone', a sign of 'label 1', all but gives the label away" in found["reason"]


def test_a_word_that_marks_one_of_four_labels_is_as_good_as_a_word_can_be():
    rng = np.random.default_rng(9)
    labels = [f"label {row % 4}" for row in range(240)]
    marked = [text + " xylophone" * (row % 4 == 2) for row, text in enumerate(random_texts(240, rng))]
    found = checks(table(marked, labels))["keyword"]
    assert found["numbers"]["label"] == "label 2"
    assert found["numbers"]["way"] == pytest.approx(1)
    assert found["numbers"]["macro_f1"] == pytest.approx((1 + 0.5) / 4)


def test_the_best_word_is_that_of_a_search_through_all_words_and_labels():
    rng = np.random.default_rng(10)
    for n_classes in (2, 3):
        codes = np.concatenate(
            [np.arange(n_classes), rng.choice(n_classes, 60 - n_classes, p=[0.6, 0.4] if n_classes == 2 else None)]
        )
        present = rng.random((60, 25)) < rng.random(25)
        scores = {
            (word, one, other): macro_f1(codes, np.where(present[:, word], one, other), n_classes)
            for word in range(25)
            for one in range(n_classes)
            for other in range(n_classes)
            if one != other and present[:, word].any()
        }
        found = leakage.best_word(sparse.csr_matrix(present), codes, n_classes)
        assert scores[found] == pytest.approx(max(scores.values()))


def test_a_planted_length_is_a_leak():
    rng = np.random.default_rng(11)
    texts = [random_texts(1, rng, *((8, 12), (20, 30))[row % 2])[0] for row in range(240)]
    found = checks(table(texts, [f"label {row % 2}" for row in range(240)]))["length"]
    assert found["severity"] == "leak"
    assert found["numbers"]["macro_f1"] > 0.97
    assert found["numbers"]["nothing"] == 0.5


def test_texts_of_one_length_have_no_score_by_length():
    data = clean(seed=12)
    data.texts[:] = [" ".join(text[:40].replace(" ", "-").ljust(40, "-")) for text in data.texts]
    found = checks(data)["length"]
    assert found["severity"] is None
    assert "no feature varies" in found["reason"]


def test_a_label_that_nearly_all_examples_have_is_worth_a_look():
    rng = np.random.default_rng(13)
    found = checks(table(random_texts(200, rng), ["rare" if row % 20 == 0 else "usual" for row in range(200)]))
    assert found["majority"]["severity"] == "look"
    assert found["majority"]["numbers"]["label"] == "usual"
    assert found["majority"]["numbers"]["share"] == pytest.approx(0.95)


# --- subsets -------------------------------------------------------------------------------------------------------


def in_subsets(word_of, subset_of, n=240, seed=14):
    """Texts of two labels in two parts, with one more word that the label and the part decide."""
    rng = np.random.default_rng(seed)
    labels, subsets = [row % 2 for row in range(n)], [subset_of(row) for row in range(n)]
    texts = [
        f"{text} {word_of(label, subset)} {subset}side"
        for text, label, subset in zip(random_texts(n, rng), labels, subsets, strict=True)
    ]
    return table(texts, [f"label {label}" for label in labels], subsets=subsets)


def halves(row):
    return "north" if row // 2 % 2 else "south"


def test_a_subset_that_is_the_label_is_a_leak():
    found = checks(in_subsets(lambda label, subset: "word", lambda row: "north" if row % 2 else "south"))
    assert found["subset"]["severity"] == "leak"
    assert found["subset"]["numbers"]["cramers_v"] == pytest.approx(1)
    assert found["subset"]["numbers"]["label_shares"]["north"] == {"label 0": 0.0, "label 1": 1.0}
    assert found["subset_from_text"]["severity"] == "look"
    assert found["left_out"]["severity"] is None
    assert "1 of 2 labels are not in the training part" in found["left_out"]["reason"]


def test_subsets_that_words_give_away_are_fine_where_labels_are_alike():
    found = checks(in_subsets(lambda label, subset: f"sign{label}", halves))
    assert found["subset"]["severity"] == "fine"
    assert found["subset"]["numbers"]["cramers_v"] == pytest.approx(0)
    assert found["subset_from_text"]["severity"] == "fine"
    assert found["subset_from_text"]["numbers"]["macro_f1"] > 0.95
    assert "so nothing is gained by that" in found["subset_from_text"]["reason"]


def test_what_is_learned_from_words_of_all_subsets_carries_over():
    found = checks(in_subsets(lambda label, subset: f"sign{label}", halves))["left_out"]
    assert found["severity"] == "fine"
    assert found["numbers"]["left_out"] > 0.9


def test_what_is_learned_from_words_of_one_subset_does_not_carry_over():
    found = checks(in_subsets(lambda label, subset: f"{subset}sign{label}", halves))["left_out"]
    assert found["severity"] == "look"
    assert found["numbers"]["in_distribution"] > 0.9
    assert found["numbers"]["left_out"] < 0.7
    assert set(found["numbers"]["subsets"]) == {"north", "south"}
    assert found["numbers"]["not_shown"] == 0


def test_a_group_is_never_trained_on_where_another_subset_of_it_is_tested():
    # Each meaning has a word of its own in both subsets and a label by lot: all there is to learn is the meaning.
    rng = np.random.default_rng(15)
    meanings = [f"meaning{row}" for row in range(120)]
    texts = [f"{meaning * 3} {text}" for meaning, text in zip(meanings * 2, random_texts(240, rng), strict=True)]
    labels = [f"label {code}" for code in np.tile(rng.permutation(np.arange(120) % 2), 2)]
    subsets = np.repeat(["north", "south"], 120)
    found = checks(table(texts, labels, np.tile(np.arange(120), 2), subsets))["left_out"]
    assert found["numbers"]["in_distribution"] < 0.7
    assert found["numbers"]["left_out"] < 0.7


def test_a_dataset_without_subsets_says_so():
    found = checks(clean())
    for name in ("subset", "subset_from_text", "left_out"):
        assert found[name]["severity"] is None
        assert found[name]["reason"] == "The dataset has a single subset."


# --- the record ----------------------------------------------------------------------------------------------------


def written(tmp_path, data):
    columns = {"id": data.ids, "text": data.texts, "label": list(data.labels), "subset": list(data.subsets)}
    columns |= {"split": data.splits, "group": data.groups}
    pq.write_table(pa.table(columns, schema=examples.schema("text")), tmp_path / "d.parquet")
    leakage.write(
        examples.read(tmp_path / "d.parquet"),
        tmp_path / "d.json",
        protocols=["paper", "strict"],
        strict_settings=STRICT,
    )
    return (tmp_path / "d.json").read_bytes()


def test_the_same_dataset_gives_the_same_bytes(tmp_path):
    data = with_copies(groups_hold=False)
    assert written(tmp_path, data) == written(tmp_path, data)


def test_no_text_is_in_the_record(tmp_path):
    data = with_copies(groups_hold=False)
    data.texts[:] = [f"{'secret' * 30}{row % 7} {text}" for row, text in enumerate(data.texts)]
    record = written(tmp_path, data).decode()
    keyword = json.loads(record)["checks"]["keyword"]
    assert len(keyword["numbers"]["word"]) <= leakage.LONGEST_WORD
    assert all(len(word) <= leakage.LONGEST_WORD for word in keyword["reason"].split())
    without = record.replace(keyword["numbers"]["word"], "")
    assert "secret" not in without
    assert not any(f" {word} " in without for word in WORDS if word not in {"north", "upper"})


def test_the_record_is_as_severe_as_its_worst_check():
    record = leakage.check(with_copies(groups_hold=False), protocols=["strict"], strict_settings=STRICT)
    assert record["severity"] == "leak"
    assert set(record["checks"]["exact_duplicates"]["numbers"]) == {"strict"}
    for entry in record["checks"].values():
        assert set(entry) == {"title", "severity", "reason", "numbers"}
        assert entry["severity"] in ("fine", "look", "leak", None)
        assert entry["reason"].endswith(".")


def test_images_are_compared_by_their_bytes_and_have_no_words():
    images = [f"image {row if row < 100 else row - 100}".encode() for row in range(120)]
    labels, subsets = [f"label {row % 2}" for row in range(120)], ["north", "south"] * 60
    data = table(None, labels, subsets=subsets, images=images)
    found = checks(data)
    assert counts_of(found["exact_duplicates"]) == counted(data, lambda a, b: images[a] == images[b])
    assert found["exact_duplicates"]["severity"] == "leak"
    assert found["majority"]["severity"] == "fine"
    assert found["subset"]["severity"] == "leak"
    for name in ("near_duplicates", "length", "keyword", "subset_from_text", "left_out"):
        assert found[name]["severity"] is None
        assert found[name]["numbers"] is None
        assert "mage" in found[name]["reason"]


def test_where_there_is_no_split_checks_say_why():
    rng = np.random.default_rng(16)
    data = table(random_texts(40, rng), ["label 0"] * 38 + ["label 1"] * 2, subsets=["north", "south"] * 20)
    found = checks(data)
    for name in ("exact_duplicates", "near_duplicates", "length", "keyword", "left_out"):
        assert found[name]["severity"] is None, name
        assert "label" in found[name]["reason"]
    assert found["majority"]["numbers"]["macro_f1"] is None
    assert found["subset_from_text"]["severity"] == "fine"


def test_random_answers_are_no_shortcut_though_they_beat_the_majority():
    """With two equal labels the majority class has a macro-F1 of a third, and noise has a half."""
    rng = np.random.default_rng(21)
    texts = random_texts(400, rng)
    found = checks(table(texts, [f"label {row % 2}" for row in range(400)]))
    for name in ("length", "keyword"):
        assert found[name]["numbers"]["nothing"] == 0.5
        assert found[name]["numbers"]["way"] < 0.15
