"""The explorer's pages: every number of the file is on them, in words, and nothing of the data acts."""

from typing import Any

import fakes_explorer
import pytest
from test_report import Reader

from tessera.report import charts, explorer, shell

EVIL = "<script>alert(1)</script>"
TITLES = {"datasets": {"requests": "Requests", "plans": "Plans & more"}, "models": {"demo-large": "Demo, large"}}


def page_of(record: dict[str, Any]) -> str:
    """A task as a page of its own."""
    template = shell.environment().get_template("part.html.j2")
    return template.render(task=explorer.task(record, TITLES), home="../../report.html")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return fakes_explorer.record()


@pytest.fixture(scope="module")
def read(record: dict[str, Any]) -> Reader:
    return Reader(page_of(record))


def test_every_feature_and_example_has_a_view_with_an_address(record: dict[str, Any], read: Reader) -> None:
    views = [attributes["id"] for attributes in read.all("article")]
    features = [f"explore.demo-large.requests/feature/{feature['feature']}" for feature in record["features"]]
    assert views == features + [f"explore.demo-large.requests/example/{place}" for place in range(1, 11)]
    links = {attributes["href"] for attributes in read.all("a")}
    assert {f"#{view}" for view in views} <= links
    ids = {attributes.get("id") for _, attributes in read.tags}
    assert {link[1:] for link in links if link and link.startswith("#")} - {"main"} <= ids


def test_a_features_weights_stability_and_rates_stand_in_its_view(record: dict[str, Any], read: Reader) -> None:
    feature = record["features"][0]
    (_, mean, low, high), *_ = feature["weights"]
    assert f"{mean:+.3f} {low:+.3f} to {high:+.3f}".replace("-", "\N{MINUS SIGN}") in read.text
    assert f"Among the 10 strongest in {feature['stability']:.0%} of the splits" in read.text
    assert f"keeps its sign in {feature['same_sign']:.0%}" in read.text
    assert "Plans & more <1%" in read.text
    for label, share in zip(record["task"]["labels"], feature["rates"]["label"], strict=True):
        assert f"{label} {share:.0%}" in read.text


def test_a_text_reads_as_it_is_with_a_mark_on_every_active_token(record: dict[str, Any]) -> None:
    for feature in record["features"]:
        for example in feature["examples"]:
            pieces = explorer.pieces(example["tokens"], example["values"], feature["largest"])
            assert "".join(piece["text"] for piece in pieces) == "".join(example["tokens"])
            marked = [piece for piece in pieces if piece["heat"]]
            assert len(marked) == sum(value > 0 for value in example["values"])
            assert all(piece["value"] for piece in marked)
            hottest = max(marked, key=lambda piece: piece["heat"])
            assert hottest["heat"] == charts.level(max(example["values"]), feature["largest"])


def test_a_part_of_a_character_and_an_end_of_line_are_shown() -> None:
    pieces = explorer.pieces(["", "\N{PILE OF POO}", "\n", " x"], [1.0, 2.0, 0.0, 2.0], 2.0)
    assert [piece["text"] for piece in pieces] == [explorer.PART, "\N{PILE OF POO}", "\u21b5 ", "x"]


def test_the_parts_of_a_decision_add_up_to_its_margin(record: dict[str, Any], read: Reader) -> None:
    for prediction in record["predictions"]:
        parts = [part[2] for part in prediction["contributions"]]
        margin = sum(parts) + prediction["intercept"] + prediction["rest"]
        assert f"Margin {explorer._signed(margin)}" in read.text
        for part in parts:
            assert explorer._signed(part) in read.text


def test_verdicts_stand_side_by_side_and_say_whether_they_are_right() -> None:
    record = fakes_explorer.record(predictions=1)
    prediction = record["predictions"][0]
    prediction |= {"label": 0, "verdicts": {"sae": [1, 0.731], "tfidf": [0, None]}, "against": 0}
    text = Reader(page_of(record)).text
    assert "Why this is called harmless" in text
    assert "SAE features harmless 73% wrong TF-IDF harmful right" in text
    assert "Hidden states" not in text


def test_neighbours_that_are_not_listed_have_no_link(record: dict[str, Any], read: Reader) -> None:
    assert "999999 (0.10)" in read.text
    assert not [link for link in read.all("a") if (link["href"] or "").endswith("/999999")]


def test_a_link_leads_to_neuronpedia_or_is_left_out() -> None:
    record = fakes_explorer.record(features=3)
    good = "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/7"
    for feature, link in zip(record["features"], [good, "javascript:alert(1)", "https://evil.example/"], strict=True):
        feature["link"] = link
    outside = [link for link in Reader(page_of(record)).all("a") if "rel" in link]
    assert [link["href"] for link in outside] == [good]


def test_an_image_is_in_the_page_once_and_its_patches_lie_over_it() -> None:
    record = fakes_explorer.record("digits", labels=("0", "1", "2"), subsets=(), image=True)
    read = Reader(page_of(record))
    held = [image["href"] for image in read.all("image")]
    assert sorted(filter(None, held)) == sorted(record["images"].values())
    keys = {f"#{image['id']}" for image in read.all("image")}
    assert {use["href"] for use in read.all("use")} <= keys
    shown = sum(value > 0 for feature in record["features"] for one in feature["examples"] for value in one["values"])
    assert sum((path["d"] or "").count("h1v1h-1z") for path in read.all("path")) == shown
    assert "strongest: row " in read.text


def test_what_is_no_image_is_not_shown_as_one() -> None:
    record = fakes_explorer.record("digits", subsets=(), image=True)
    record["images"] = dict.fromkeys(record["images"], "https://evil.example/pixel.png")
    assert "evil.example" not in page_of(record)


def test_a_task_without_a_probe_says_why() -> None:
    text = Reader(page_of(fakes_explorer.failed("No SAE of this model was probed."))).text
    assert "There is nothing to explore: No SAE of this model was probed." in text


def test_words_of_other_people_are_shown_and_do_nothing() -> None:
    words = [
        EVIL,
        "</script>",
        "\u202eright to left\u202c",
        "\x00\x1b[31m",
        '"><img src=x onerror=alert(2)>',
        "\ud800",
        "\u0645\u0631\u062d\u0628\u0627",
    ]
    record = fakes_explorer.record(labels=(EVIL, "b"), subsets=(EVIL, "\u202een"), words=words)
    page = page_of(record)
    read = Reader(page)
    assert page.encode("utf-8")
    assert len(read.all("script")) == 1
    assert not read.all("img")
    assert not set(page) & {"\x00", "\x1b", "\u202e", "\u202c", "\ud800"}
    for shown in (
        EVIL,
        "</script>",
        "[U+202E]right to left[U+202C]",
        "\u2400\u241b[31m",
        "\u0645\u0631\u062d\u0628\u0627",
    ):
        assert shown in read.text


def test_of_very_many_labels_the_most_active_have_a_bar(record: dict[str, Any]) -> None:
    labels = tuple(f"label {place:03d}" for place in range(100))
    record = fakes_explorer.record(labels=labels, features=1, predictions=0)
    rates = record["features"][0]["rates"]["label"]
    (feature,) = explorer.task(record, TITLES)["features"]
    shown = feature["rates"]["label"]
    highest = sorted(zip(rates, labels, strict=True), reverse=True)
    assert [row["name"] for row in shown[:-1]] == [name for _, name in highest[: explorer.MOST - 1]]
    assert shown[-1]["name"] == f"{101 - explorer.MOST} others, at most"
    assert 'width="140"' in str(feature["columns"])


def test_the_same_file_gives_the_same_page(record: dict[str, Any]) -> None:
    assert page_of(record) == page_of(fakes_explorer.record())
