"""Transfers whose answers are known, from a results folder to the table of cells."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transfers_made import capture, cells, dataset, given, separable, settings

from tessera import transfer
from tessera.errors import UserError

NAMES = np.array(["no", "yes"], dtype=object)
WITHIN = {"translations": None, "train_shares": [], "selections": ["none"], "origin": None, "dataset": "d"}


def run(results: Path, chosen: dict[str, Any], name: str = "t") -> list[dict[str, Any]]:
    folder = results / "transfer" / name
    transfer.run(name, chosen, results=results, folder=folder)
    return cells(folder)


def by(rows: list[dict[str, Any]], *keys: str) -> dict[Any, dict[str, Any]]:
    """The rows by some of their columns; no two may share them."""
    found = {tuple(row[key] for key in keys): row for row in rows}
    assert len(found) == len(rows)
    return found


def languages(
    results: Path, labels: dict[str, np.ndarray], features: dict[str, np.ndarray], **more: Any
) -> list[dict[str, Any]]:
    """A transfer between subsets; the examples of a row are of one group in every subset."""
    subsets = [name for name, codes in labels.items() for _ in codes]
    groups = [row for codes in labels.values() for row in range(len(codes))]
    dataset(results, "d", NAMES[np.concatenate(list(labels.values()))].tolist(), subsets=subsets, groups=groups)
    manifest = capture(results, "m", "d", {"layer-0": np.concatenate(list(features.values()))})
    return run(results, settings("language", ["d"], [given("m", "layer-0", {"d": manifest})], **(WITHIN | more)))


def test_identical_subsets_transfer_perfectly(tmp_path: Path) -> None:
    codes = np.arange(60) % 2
    X = separable(codes, 0)
    rows = languages(tmp_path, {"aa": codes, "bb": codes}, {"aa": X, "bb": X})
    of_arm = by([row for row in rows if row["head"] is None], "source", "target")
    assert len({(row["macro_f1"], row["low"], row["high"], row["n_train"]) for row in of_arm.values()}) == 1
    assert 0.7 < of_arm["aa", "bb"]["macro_f1"] < 1
    assert (of_arm["aa", "bb"]["training"], of_arm["aa", "aa"]["training"]) == ("transferred", "native")
    crossed = of_arm["aa", "bb"]
    assert crossed["ceiling"] == of_arm["bb", "bb"]["macro_f1"]
    assert (crossed["closed"], crossed["closed_low"], crossed["closed_high"]) == (1.0, 1.0, 1.0)
    assert of_arm["aa", "aa"]["closed"] is None


def test_what_is_learned_of_permuted_labels_transfers_at_chance(tmp_path: Path) -> None:
    codes = np.arange(200) % 2
    wrong = np.random.default_rng(1).permutation(codes)
    X = separable(codes, 0, distance=4)
    rows = languages(tmp_path, {"aa": wrong, "bb": codes, "cc": codes}, {"aa": X, "bb": X, "cc": X})
    of_arm = by([row for row in rows if row["head"] is None], "source", "target")
    assert of_arm["bb", "cc"]["macro_f1"] > 0.9
    lost = of_arm["aa", "bb"]
    assert abs(lost["macro_f1"] - 0.5) < 0.15
    assert lost["closed_low"] < 0.3
    assert of_arm["aa", "aa"]["ceiling_low"] < 0.5


def test_a_subset_without_one_of_the_labels_fails_alone(tmp_path: Path) -> None:
    codes = np.arange(60) % 2
    X = separable(codes, 0, distance=4)
    rows = languages(tmp_path, {"aa": codes, "bb": codes * 0, "cc": codes}, {"aa": X, "bb": X, "cc": X})
    of_arm = by([row for row in rows if row["head"] is None], "source", "target")
    assert of_arm["bb", "aa"]["reason"] == "all its examples are 'no'"
    assert {of_arm[pair]["status"] for pair in (("aa", "cc"), ("cc", "aa"), ("aa", "aa"), ("aa", "bb"))} == {"ok"}
    assert of_arm["aa", "cc"]["macro_f1"] > 0.9


def test_every_source_trains_on_the_same_number(tmp_path: Path) -> None:
    long, short = np.arange(120) % 2, np.arange(45) % 2
    X = {"aa": separable(long, 0), "bb": separable(short, 1)}
    rows = languages(tmp_path, {"aa": long, "bb": short}, X, train_shares=[0.5])
    (whole,) = {row["n_train"] for row in rows if row["share"] == 1}
    assert 27 <= whole <= 30
    assert {row["n_train"] for row in rows if row["share"] == 0.5} == {round(whole / 2)}
    assert {row["n_test"] for row in rows if row["target"] == "aa"} == {120}


def test_translations_are_trained_on_and_never_tested(tmp_path: Path) -> None:
    codes = np.arange(80) % 2
    subsets = ["aa"] * 40 + ["bb"] * 40
    groups = [*range(40), *range(40)]
    ids = [f"{group}-{subset}" for group, subset in zip(groups, subsets, strict=True)]
    dataset(tmp_path, "d", NAMES[codes].tolist(), subsets=subsets, groups=groups, ids=ids)
    dataset(tmp_path, "p", NAMES[codes[40:]].tolist(), ids=ids[40:])
    X = separable(codes, 0, distance=4)
    inputs = [
        given(
            "m",
            "layer-0",
            {"d": capture(tmp_path, "m", "d", {"layer-0": X}), "p": capture(tmp_path, "m", "p", {"layer-0": X[40:]})},
        )
    ]
    chosen = settings("language", ["d", "p"], inputs, **(WITHIN | {"translations": "p"}))
    rows = [row for row in run(tmp_path, chosen) if row["head"] is None]
    found = by(rows, "source", "target", "training")
    # The translations here are copies, so they are worth as much as the originals.
    assert found["bb", "bb", "translated"]["macro_f1"] == found["bb", "bb", "native"]["macro_f1"]
    assert found["bb", "bb", "translated"]["closed"] == 1.0
    assert found["aa", "aa", "translated"]["reason"] == "'p' has no translations of 'aa'"
    assert {row["n_test"] for row in rows if row["status"] == "ok"} == {40}


def test_a_translation_without_its_original_is_named(tmp_path: Path) -> None:
    dataset(tmp_path, "d", ["no", "yes"] * 20, subsets=["aa"] * 40)
    dataset(tmp_path, "p", ["no", "yes"], ids=["7", "nobody"])
    chosen = settings("language", ["d", "p"], [], **(WITHIN | {"translations": "p"}))
    with pytest.raises(UserError, match=r"datasets\.p\.id: 1 translations have ids that 'd' lacks, such as 'nobody'"):
        run(tmp_path, chosen)


# --- tasks ---------------------------------------------------------------------------------------------------------


def test_datasets_with_words_of_their_own_meet_in_common_labels(tmp_path: Path) -> None:
    codes = np.arange(60) % 2
    manifests = {}
    for seed, (name, words) in enumerate(
        {"one": ["no", "yes"], "two": ["bad", "good"], "three": ["no", "yes"]}.items()
    ):
        dataset(tmp_path, name, np.array(words, dtype=object)[codes].tolist())
        manifests[name] = capture(tmp_path, "m", name, {"layer-0": separable(codes, seed, distance=4)})
    labels = {"two": {"bad": "no", "good": "yes"}}
    chosen = settings(
        "task", list(manifests), [given("m", "layer-0", manifests)], datasets=list(manifests), labels=labels
    )
    found = by([row for row in run(tmp_path, chosen) if row["head"] is None], "source", "target")
    assert all(row["macro_f1"] > 0.9 for row in found.values())
    assert found["two", "two"]["training"] == "in-domain"
    assert found["all others", "two"]["training"] == "leave-one-out"
    assert len({row["n_train"] for row in found.values()}) == 1
    again = run(tmp_path, {**chosen, "labels": {}}, "unmapped")
    found = by([row for row in again if row["head"] is None], "source", "target")
    assert found["one", "two"]["reason"] == "'two' has labels that 'one' lacks: 'bad', 'good'"
    assert found["one", "three"]["macro_f1"] > 0.9


def test_a_text_in_two_datasets_is_never_trained_on_and_tested(tmp_path: Path) -> None:
    # Features say nothing but which text it is: only a copy in the training part could be answered right.
    codes = np.random.default_rng(0).integers(0, 2, 90)
    X = np.eye(90, dtype=np.float32)
    manifests = {}
    for name in ("one", "two"):
        dataset(
            tmp_path,
            name,
            NAMES[codes].tolist(),
            texts=[f"Text  {row}" if name == "one" else f"text {row}" for row in range(90)],
        )
        manifests[name] = capture(tmp_path, "m", name, {"layer-0": X})
    chosen = settings("task", list(manifests), [given("m", "layer-0", manifests)], datasets=list(manifests), labels={})
    found = by([row for row in run(tmp_path, chosen) if row["head"] is None], "source", "target")
    assert found["one", "two"]["macro_f1"] < 0.65


# --- models --------------------------------------------------------------------------------------------------------


def behaviour(results: Path, name: str, right: list[bool | None], confidence: np.ndarray) -> None:
    path = results / "behaviours" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"right": pa.array(right, pa.bool_()), "confidence": confidence}), path)
    path.with_suffix(".json").write_text("{}")


def test_the_answering_models_own_reading_is_the_ceiling_and_its_twin_reaches_it(tmp_path: Path) -> None:
    codes = np.arange(90) % 2
    X = separable(codes, 0, distance=3)
    dataset(tmp_path, "quiz", [""] * 91)
    behaviour(tmp_path, "b", [*(bool(code) for code in codes), None], np.linspace(0.5, 1, 91))
    more = np.vstack([X, np.zeros((1, X.shape[1]))])
    inputs = [
        given("answers", "layer-0", {"quiz": capture(tmp_path, "answers", "quiz", {"layer-0": more})}),
        given("twin", "layer-0", {"quiz": capture(tmp_path, "twin", "quiz", {"layer-0": more})}),
        given(
            "blind",
            "layer-0",
            {"quiz": capture(tmp_path, "blind", "quiz", {"layer-0": separable(codes * 0, 7)[[*range(90), 0]]})},
        ),
    ]
    asked = {"b": {"dataset": "quiz", "model": "answers"}}
    rows = run(tmp_path, settings("model", ["quiz"], inputs, asked=asked, published={}))
    found = by([row for row in rows if row["head"] is None], "source", "arm")
    own, twin, blind = (found[name, "hidden"] for name in ("answers", "twin", "blind"))
    assert (own["training"], twin["training"]) == ("own", "other")
    assert own["n_test"] == 90
    assert [own[key] for key in ("macro_f1", "low", "high")] == [twin[key] for key in ("macro_f1", "low", "high")]
    assert twin["closed"] == 1.0
    assert abs(blind["closed"]) < 0.4
    # How sure it was tells nothing here.
    assert found["answers", "confidence"]["macro_f1"] < 0.65


@pytest.mark.parametrize("outcome", [True, False])
def test_a_quiz_with_one_outcome_is_a_record(tmp_path: Path, outcome: bool) -> None:
    dataset(tmp_path, "quiz", [""] * 30)
    behaviour(tmp_path, "same", [outcome] * 30, np.linspace(0, 1, 30))
    behaviour(tmp_path, "fine", [bool(row % 2) for row in range(30)], np.linspace(0, 1, 30))
    X = separable(np.arange(30) % 2, 0, distance=6)
    inputs = [given("m", "layer-0", {"quiz": capture(tmp_path, "m", "quiz", {"layer-0": X})})]
    asked = {name: {"dataset": "quiz", "model": "m"} for name in ("same", "fine")}
    rows = run(tmp_path, settings("model", ["quiz"], inputs, asked=asked, published={}))
    assert {row["reason"] for row in rows if row["target"] == "same"} == {
        f"all its examples are '{'right' if outcome else 'wrong'}'"
    }
    assert {row["status"] for row in rows if row["target"] == "fine"} == {"ok"}


def test_published_labels_of_a_model_that_is_not_here_have_no_ceiling(tmp_path: Path) -> None:
    codes = np.arange(60) % 2
    dataset(tmp_path, "told", NAMES[codes].tolist())
    inputs = [given("m", "layer-0", {"told": capture(tmp_path, "m", "told", {"layer-0": separable(codes, 0)})})]
    rows = run(tmp_path, settings("model", ["told"], inputs, asked={}, published={"told": None}))
    assert {(row["status"], row["ceiling"], row["training"]) for row in rows} == {("ok", None, "other")}


# --- modalities ----------------------------------------------------------------------------------------------------


def picture(value: int) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def pictures(
    results: Path, codes: np.ndarray, towers: np.ndarray, states: np.ndarray, names: np.ndarray
) -> list[dict[str, Any]]:
    shades = np.random.default_rng(5).integers(0, 256, len(codes))
    dataset(results, "images", NAMES[codes].tolist(), images=[picture(int(shade)) for shade in shades])
    dataset(results, "names", NAMES[np.arange(len(names)) % 2].tolist())
    of_images = capture(results, "v", "images", {"vision": towers, "layer-0": states})
    of_names = capture(results, "v", "names", {"layer-0": names})
    inputs = [
        given("v", "vision", {"images": of_images}, arm="vision"),
        given("v", "layer-0", {"images": of_images, "names": of_names}),
    ]
    chosen = settings("modality", ["images", "names"], inputs, model="v", images="images", names="names")
    return run(results, chosen)


def test_names_alone_tell_images_where_both_lie_in_the_same_direction(tmp_path: Path) -> None:
    codes = np.arange(80) % 2
    rows = pictures(
        tmp_path,
        codes,
        separable(codes, 0, distance=5),
        separable(codes, 1, distance=3),
        separable(np.arange(30) % 2, 2, distance=3),
    )
    found = by([row for row in rows if row["head"] is None], "source", "arm")
    assert set(found) == {("images", "vision"), ("images", "hidden"), ("images", "pixels"), ("names", "hidden")}
    zero = found["names", "hidden"]
    assert zero["training"] == "zero-shot"
    assert zero["macro_f1"] > 0.8
    assert zero["ceiling"] == found["images", "hidden"]["macro_f1"]
    assert found["images", "hidden"]["ceiling"] == found["images", "vision"]["macro_f1"]
    assert found["images", "pixels"]["macro_f1"] < 0.7


def test_a_model_that_is_blind_to_images_scores_at_chance_or_says_why(tmp_path: Path) -> None:
    codes = np.arange(120) % 2
    anything = separable(codes * 0, 3)
    rows = pictures(
        tmp_path / "noise", codes, separable(codes, 0, distance=5), anything, separable(np.arange(30) % 2, 2)
    )
    found = by([row for row in rows if row["head"] is None], "source", "arm")
    for source in ("images", "names"):
        blind = found[source, "hidden"]
        assert blind["low"] < 0.55
        assert blind["closed_low"] is None or blind["closed_low"] < 0.2
    rows = pictures(
        tmp_path / "same", codes, separable(codes, 0, distance=5), np.ones((120, 6)), separable(np.arange(30) % 2, 2)
    )
    found = by([row for row in rows if row["head"] is None], "source", "arm")
    assert "no feature varies in the training part" in found["images", "hidden"]["reason"]
    assert found["images", "vision"]["status"] == "ok"


# --- what is kept --------------------------------------------------------------------------------------------------


def test_an_input_more_computes_that_alone_and_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    codes = np.arange(60) % 2
    dataset(tmp_path, "d", NAMES[codes].tolist() * 2, subsets=["aa"] * 60 + ["bb"] * 60)
    X = separable(np.tile(codes, 2), 0)
    manifest = capture(tmp_path, "m", "d", {"layer-0": X, "layer-1": X[:, :3]})
    inputs = [given("m", f"layer-{layer}", {"d": manifest}, layer=layer) for layer in (0, 1)]
    run(tmp_path, settings("language", ["d"], inputs[:1], **WITHIN))
    answers = tmp_path / "transfer/t/answers"
    (first,) = answers.iterdir()
    before = first.stat().st_mtime_ns
    run(tmp_path, settings("language", ["d"], inputs, **WITHIN))
    assert first.stat().st_mtime_ns == before
    assert len(list(answers.iterdir())) == 2
    run(tmp_path, settings("language", ["d"], inputs, **WITHIN), "again")
    whole = [(tmp_path / "transfer" / name / "cells.parquet") for name in ("t", "again")]
    one, other = (pq.ParquetFile(path).read().drop_columns(["transfer"]) for path in whole)
    assert one.equals(other)
