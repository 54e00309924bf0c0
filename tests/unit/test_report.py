"""The report page: one file, nothing from outside, nothing that runs, readable by everyone, honest about what is missing."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import fakes_explorer
import fakes_tables
import pandas as pd
import pytest
from fakes_report import ROOT, written

from tessera import findings, report
from tessera.files import write_json
from tessera.report import citation, shell
from tessera.results import Tables

CITATION = citation.read(ROOT / "CITATION.cff")
VOID = {"meta", "img", "br", "link", "input", "hr"}
FIGURE = {
    "name": "arms",
    "title": "Arms",
    "alt": "A dot plot.",
    "caption": "Look.",
    "image": "data:image/svg+xml;base64,PHN2Zy8+",
    "data": "data:text/csv;base64,YSxiCg==",
}
EVIL = "<script>alert('label')</script>"


def page_of(tables: Tables, records: dict[str, Any] | None = None, **changes: Any) -> str:
    given: dict[str, Any] = {
        "findings": findings.derive(tables),
        "figures": [FIGURE],
        "citation": CITATION,
        "records": records or fakes_tables.records(),
        "probes": fakes_tables.PROBES,
    }
    return report.render(tables, **(given | changes))


class Reader(HTMLParser):
    """What a browser would make of the page: tags in balance, attributes, and the words between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(fakes_tables.world())


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_build_writes_one_file_with_its_figures_inside_the_same_every_time(tmp_path: Path) -> None:
    given = written(tmp_path)
    for name in ("first.html", "second.html"):
        report.build(tmp_path / name, **given)
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()
    read = Reader((tmp_path / "first.html").read_text(encoding="utf-8"))
    assert len(read.all("img")) == 1
    assert "How healthy the SAEs are, before their features are blamed or praised" in read.text
    (download,) = [link for link in read.all("a") if link.get("download")]
    assert download["download"] == "saes.csv"
    held = base64.b64decode((download["href"] or "").removeprefix("data:text/csv;base64,"))
    assert held == (given["figures"] / "saes.csv").read_bytes()


def test_the_features_of_a_task_stand_inside_the_file_or_beside_it(tmp_path: Path) -> None:
    given = written(tmp_path)
    files = [tmp_path / "explorer/demo-large" / f"{name}.json" for name in ("docstrings", "requests")]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fakes_explorer.record(path.stem)), encoding="utf-8")
    apart = tmp_path / "report/demo-large/requests.html"
    report.build(tmp_path / "report.html", **given, features=files, apart={files[1]: apart})
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = {attributes.get("href") for attributes in page.all("a")}
    assert "explore.demo-large.docstrings" in ids
    assert "explore.demo-large.requests" not in ids
    assert {"#explore.demo-large.docstrings", "report/demo-large/requests.html"} <= links
    beside = Reader(apart.read_text(encoding="utf-8"))
    assert "explore.demo-large.requests" in {attributes.get("id") for _, attributes in beside.tags}
    assert "../../report.html#explore" in {attributes.get("href") for attributes in beside.all("a")}
    for way in ("report/demo-large/requests.html", "../../report.html"):
        folder = tmp_path if way.startswith("report") else apart.parent
        assert (folder / way).resolve().is_file()


def test_an_sae_that_no_probe_reads_has_its_model_and_its_health(tmp_path: Path) -> None:
    given = written(tmp_path)
    sae = tmp_path / "records/saes/borrowed/revision.json"
    shape = {"layer": 1, "d_sae": 256, "architecture": "topk"}
    write_json(sae, shape | {"source": {"borrowed": "demo-large-l1-512"}, "sha256": "2" * 64})
    health = {"explained_variance": 0.617, "l0": 11.9, "dead_fraction": 0.25, "tokens": 10}
    head = {"kind": "sae", "layer": 1, "width": 256, "architecture": "topk", "health": health}
    manifest = tmp_path / "activations/demo-large/requests/c/manifest.json"
    write_json(manifest, {"heads": {"borrowed": head}, "examples": 1, "tokens": {"read": 10}})
    report.build(
        tmp_path / "report.html",
        **(given | {"saes": [sae]}),
        manifests=[manifest],
        sae_models={"borrowed": "demo-large"},
    )
    page = Reader((tmp_path / "report.html").read_text()).text
    told = page[page.index("borrowed", page.index("Sparse autoencoders")) :]
    assert "demo-large-l1-512, read here on this model" in told
    assert told.index("Demo, large") < told.index("0.617") < told.index("11.9") < told.index("25.0%")


def test_nothing_is_fetched_and_only_the_pages_own_script_and_style_run(page: str, read: Reader) -> None:
    assert len(read.all("script")) == len(read.all("style")) == 1
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), value
    policy = next(meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    (style,), (script,) = (re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("style", "script"))
    assert policy == (
        f"default-src 'none'; img-src data:; style-src '{shell.digest(style)}'; script-src '{shell.digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_every_link_of_the_page_leads_somewhere_in_it(read: Reader) -> None:
    ids = [attributes["id"] for _, attributes in read.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    inside = {(attributes.get("href") or "")[1:] for attributes in read.all("a")} - {"all", "main"}
    assert {name for name in inside if not name.startswith("ata:")} <= set(ids)


def test_words_of_other_people_are_escaped_wherever_they_stand() -> None:
    titles = {"datasets": {"docstrings": EVIL + "1"}, "models": {"demo-large": EVIL + "2"}}
    tables = fakes_tables.world({"docstrings": ["all", EVIL + "3"]}, {"demo-large": [1, 3, 5]}, titles=titles)
    tables = fakes_tables.with_failed(tables, EVIL + "4", arm="tfidf")
    records = fakes_tables.records()
    records["datasets"]["docstrings"]["labels"] = {EVIL + "5": 10, "ok": 10}
    records["datasets"]["docstrings"]["exclusions"] = {EVIL + "6": {"count": 1, "examples": []}}
    records["checks"]["docstrings"]["checks"]["keyword"]["reason"] = EVIL + "8"
    records["saes"]["demo-large-l1-512"]["source"] = {"release": EVIL + "7", "id": '"><img src=x onerror=alert(1)>'}
    read = Reader(page_of(tables, records))
    assert len(read.all("script")) == 1
    assert {image["alt"] for image in read.all("img")} == {FIGURE["alt"]}
    for number in range(1, 9):
        assert f"{EVIL}{number}" in read.text


def test_characters_that_do_not_print_are_marked() -> None:
    records = fakes_tables.records()
    records["datasets"]["docstrings"]["labels"] = {"\x00\x1b[2J\u202eevil\u2066": 10, "ok": 10}
    page = page_of(fakes_tables.world(), records)
    assert "␀␛[2J[U+202E]evil[U+2066]" in page
    assert not set("\x00\x1b\u202e\u2066") & set(page)


def test_headings_stand_in_order(read: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_pages_come_in_the_order_of_the_questions(read: Reader) -> None:
    pages = [attributes["id"] for attributes in read.all("section")]
    assert pages == [
        "front",
        "scores",
        "figures",
        "datasets",
        "dataset.docstrings",
        "dataset.requests",
        "models",
        *(f"sae.{name}" for name in fakes_tables.SAES),
        "checks",
        "failures",
        "methods",
    ]
    links = [attributes["href"] for attributes in read.all("a")]
    top = [f"#{name}" for name in pages if name and "." not in name]
    assert [link for link in links if link in top][: len(top) + 1] == ["#front", *top]


def test_tables_and_figures_can_be_read_without_seeing_them(read: Reader) -> None:
    assert all(image["alt"] for image in read.all("img"))
    assert all(cell["scope"] in ("col", "row") for cell in read.all("th"))
    assert len(read.all("caption")) == len(read.all("table"))
    scrolls = [attributes for attributes in read.all("div") if "scroll" in (attributes.get("class") or "")]
    assert all(scroll["role"] == "group" and scroll["aria-label"] and scroll["tabindex"] == "0" for scroll in scrolls)
    assert all(chart["aria-hidden"] == "true" for chart in read.all("svg"))
    assert read.all("html")[0]["lang"] == "en"


def test_colours_are_readable_in_light_in_dark_and_in_print() -> None:
    css = (Path(report.__file__).parent / "page.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    light, dark = ({name: colours[place] for name, *colours in pairs} for place in (0, 1))
    printed = light | dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", css))
    assert len(light) == 20
    for scheme in (light, dark, printed):
        for ink in ("ink", "soft", "link", "bad", "good"):
            for ground in ("ground", "band"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground)
        assert contrast(scheme["note-ink"], scheme["note"]) >= 4.5
        for heat in range(1, 9):
            assert contrast(scheme["ink"], scheme[f"h{heat}"]) >= 4.5, heat
        for mark in ("mark", "warm"):
            assert contrast(scheme[mark], scheme["ground"]) >= 3, mark


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""
    bright, dim = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_three_findings_and_every_strict_score_are_on_the_page(read: Reader) -> None:
    tables = fakes_tables.world()
    for finding in findings.derive(tables):
        assert finding["title"] in read.text
        assert finding["sentence"] in read.text
        assert all(point in read.text for point in finding["points"])
    for row in tables.arm_rows("strict").itertuples():
        assert f"{row.macro_f1:.3f} {row.low:.3f} to {row.high:.3f}" in read.text


def test_failures_are_listed_with_their_reasons() -> None:
    tables = fakes_tables.with_failed(fakes_tables.world(), "it broke", dataset="docstrings", arm="sae")
    text = Reader(page_of(tables)).text
    assert "failed: it broke" in text
    assert "36 of" not in text
    assert text.count("216 of 216 it broke") == 3  # on the first page, on that of failures, on the dataset's
    assert "Nothing failed" not in text
    assert "Nothing failed: every score" in Reader(page_of(fakes_tables.world())).text


def test_a_demo_run_is_called_a_toy_and_a_real_one_is_not(read: Reader) -> None:
    assert "Real measurements of a toy." in read.text
    assert "held-out loss 3.41 nats a token, against 5.87 for guessing by frequency alone" in read.text
    assert "explained variance 0.81, L0 17.3, dead 4.3%" in read.text
    real = {
        "datasets": {"docstrings": fakes_tables.dataset_record({"a": 5, "b": 6}, {"all": 11}, {"hub": "own/er"})},
        "models": {"demo-large": {"source": {"hub": "own/model", "revision": "f" * 40}, "sha256": "0" * 64}},
        "saes": {"demo-large-l1-512": {"source": {"release": "scope", "id": "layer_1"}, "sha256": "1" * 64}},
        "checks": {},
    }
    text = Reader(page_of(fakes_tables.world(), real)).text
    assert "toy" not in text
    assert f"own/model at {'f' * 40}" in text
    assert "scope layer_1" in text
    assert "held-out loss" not in text


def test_datasets_are_described_by_what_their_records_say(read: Reader) -> None:
    assert "2,080 in 2,076 groups" in read.text
    assert "numpy (260)" in read.text
    assert "de (240), en (240)" in read.text
    assert "3 missing text" in read.text
    assert "4, 2 with another label" in read.text


def test_a_run_without_models_or_figures_still_makes_a_page() -> None:
    tables = fakes_tables.world(models={}, saes={})
    records = {"datasets": fakes_tables.records()["datasets"], "models": {}, "saes": {}, "checks": {}}
    text = Reader(page_of(tables, records, figures=[])).text
    assert "The config names no language model." in text
    assert "The config names no SAE." in text
    assert "This run drew no figures." in text
    assert "Paired differences" not in text


def test_a_run_of_the_paper_protocol_alone_is_marked_as_optimistic() -> None:
    tables = fakes_tables.world(protocols=("paper",))
    text = Reader(page_of(tables, probes=fakes_tables.PROBES | {"protocols": ["paper"]})).text
    assert "Optimistic numbers." in text
    assert "Strict (not run here)" in text
    assert "Optimistic numbers." not in Reader(page_of(fakes_tables.world())).text


def test_the_paper_and_the_software_can_be_cited(read: Reader) -> None:
    assert "arXiv 2502.11367" in read.text
    assert "The Tessera developers." in read.text
    assert "numpy" in dict(report.versions())


def test_what_a_dataset_gives_away_is_told_and_what_is_fine_on_its_own_page_alone(read: Reader) -> None:
    assert read.text.count("A single word look The word 'array' goes far.") == 2
    assert read.text.count("It says little.") == 1
    assert "every check of every dataset is fine" in Reader(page_of(fakes_tables.world(), without_checks())).text


def without_checks() -> dict[str, Any]:
    return {**fakes_tables.records(), "checks": {}}


def test_comparisons_over_datasets_say_when_they_cannot_tell(read: Reader) -> None:
    assert "Over datasets" in read.text
    assert "too few datasets" in read.text


def test_other_classifiers_stand_beside_the_regression_where_there_are_any() -> None:
    tables = fakes_tables.world()
    assert "Other classifiers" not in Reader(page_of(tables)).text
    strict = tables.arms[(tables.arms["protocol"] == "strict") & (tables.arms["arm"] == "sae")]
    trees = strict.assign(arm="sae-tree", macro_f1=0.123, low=0.101, high=0.145)
    text = Reader(page_of(replace(tables, arms=pd.concat([tables.arms, trees])))).text
    assert "Logistic regression Decision tree" in text
    assert "0.123 0.101 to 0.145" in text
