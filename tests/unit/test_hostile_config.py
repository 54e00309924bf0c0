"""Configs of any kind, from slips to malice: one that can be planned, or one clear line, and never a traceback.

Right configs are taken and changed at random in a few places: a value becomes another of any type, a key or an entry goes, comes
or is doubled. What comes through is planned as the workflow plans it.
"""

import copy
import datetime
import json
import math
import os
import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import given as tried_on
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from test_config import GOOD, transferring
from worlds import ROOT, own_config

from tessera import config_file, figure_names
from tessera.costs import Costs, Facts, words
from tessera.errors import UserError
from tessera.files import canonical_json
from tessera.study import Study

EXAMPLES = 1000

FACTS = Facts(ROOT / "resources/reference")
SCHEMA = Draft202012Validator(json.loads((ROOT / "config/schema.json").read_text()))
RIGHT: list[dict[str, Any]] = [
    own_config(),
    yaml.safe_load((ROOT / "config/config.yaml").read_text()),
    yaml.safe_load((ROOT / "config/gpt2.yaml").read_text()),
    *(transferring(kind) for kind in GOOD),
]

WORDS = [
    *("", " ", "\n", "d", "e", "m", "s", "b", "text", "all", "tokens", "layer-1", "con", "nul", "unpinned", "a" * 40),
    *(".", "..", "/", "../../out", "/dev/zero", "/dev/stdin", "a\0b", "a/b", "x" * 5000, "\ud800", "\u202eabc\x1b[2J"),
    *("{text}", "{", "{}", "{a!r}", "{a.__class__}", "{0}", "$x$", "=1+1", "<script>", "top-0", "top-9", "\U0001d7d8"),
    *("file", "hub", "demo", "borrowed", "resid_pre", "float16", "language", "l1", "yes", "null", "~", "1"),
]  # fmt: skip
NUMBERS = [
    *(0, -1, 1, 2, 3, 20, 1000, 1001, 2**31, 2**32, 2**63, 2**64, 10**30, -(10**30), True, False),
    *(0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, math.nan, math.inf, -math.inf),
]
# What YAML makes of tags and bare dates.
OTHERS: list[Any] = [None, [], {}, [[]], [None], {"": ""}, {1: 2}, {None: None}, {True: {}}, b"\xff", {"a", "b"}]
OTHERS += [datetime.date(2026, 1, 1), [("a", 1)]]
leaves = st.sampled_from(WORDS) | st.sampled_from(NUMBERS) | st.sampled_from(OTHERS) | st.text(max_size=8)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=4,
)


HOW = ["replaced", "removed", "doubled", "named", "filled"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything in a config, outermost first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in inside for place in places(inner, (*path, key)))]


def changed(config: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    """The config with one place replaced, removed, put into or doubled."""
    if not path:
        return value if how == "replaced" else config
    holder = config
    for key in path[:-1]:
        holder = holder[key]
    last = path[-1]
    if how == "removed":
        del holder[last]
    elif how == "doubled" and isinstance(holder, list):
        holder.append(holder[last])
    elif how == "named" and isinstance(holder, dict) and isinstance(value, Hashable):
        holder[value] = holder.pop(last)
    elif how == "filled" and isinstance(holder[last], dict) and isinstance(value, Hashable):
        holder[last][value] = value
    else:
        holder[last] = value
    return config


def words_of(value: Any) -> list[str]:
    """Every text in a config, keys included."""
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [word for inner in inside for word in words_of(inner)]


def akin(value: Any, config: Any) -> st.SearchStrategy[Any]:
    """Values that could stand in the place of this one: of its type, and names that the config knows."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int | float):
        return st.sampled_from([number for number in NUMBERS if type(number) is type(value)]) | st.integers(0, 9)
    if isinstance(value, list) and value:
        return st.permutations(value).flatmap(lambda order: st.sampled_from([order, order[:1], order[1:], order * 2]))
    return st.sampled_from([*words_of(config), *WORDS])


@st.composite
def configs(draw: st.DrawFn) -> Any:
    config = copy.deepcopy(draw(st.sampled_from(RIGHT)))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(config)))
        value = config
        for key in path:
            value = value[key]
        # Most changes keep the type, or few would be about more than types.
        wild = draw(st.integers(0, 3)) == 0
        how = draw(st.sampled_from(HOW)) if wild else "replaced"
        given = draw(values if wild or isinstance(value, dict) else akin(value, config))
        config = changed(config, path, how, copy.deepcopy(given))
        if not isinstance(config, dict):
            break
    return config


def plan(study: Study) -> None:
    """What the workflow asks of a study while it plans, and what `snakemake plan` says of it."""
    figures = list(figure_names.transfer_figures(study.titles()["transfers"]))
    study.wanted_manifests(), study.probed_manifests(), study.text_probes(), study.head_probes(), study.search()
    for name in study.config.transfers:
        study.transfer_settings(name), study.transfer_files(name), study.transfer_tables(name)
    for section in ("datasets", "models", "saes"):
        study.fetches(section)
        for name in study.plain[section]:
            study.entry(section, name), study.made_source(section, name)
    words(Costs(study, FACTS).everything(["arms", *figures]))
    study.require_sources()


def refusal(raw: Any) -> str | None:
    """The line that a config is refused with; None if it can be planned."""
    try:
        study = Study(config_file.parse(raw))
        # What rules depend on is hashed and written down, and the schema tells editors what is right.
        canonical_json(study.plain)
        assert not list(SCHEMA.iter_errors(json.loads(canonical_json(raw))))
        plan(study)
    except UserError as error:
        return str(error)
    return None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the sources of the right configs in it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/model", "data/sae-l1", "data/sae-l3", "pictures"):
        Path(folder).mkdir(parents=True)
    for file in ("data/reviews.csv", "x.csv", "y.csv", "q.csv"):
        Path(file).touch()


def test_any_config_is_planned_or_refused_in_one_clear_line(here: None) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @tried_on(configs())
    def check(raw: Any) -> None:
        line = refusal(raw)
        outcomes[line is None] += 1
        if line is not None:
            assert re.fullmatch(r"\S.*: .+\. Mend: .+\.", line), line
            assert line.isprintable()
            assert len(line) < 3000

    check()
    # Changes that hurt nothing and changes that do are both common, or the other half would not have been tried.
    assert min(outcomes[True], outcomes[False]) > EXAMPLES / 20, outcomes


def nested(value: Any, times: int, width: int = 1) -> Any:
    for _ in range(times):
        value = [value] * width
    return value


def holding_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


FILE, FOLDER = ("datasets", "reviews", "source", "file"), ("models", "mine", "source", "folder")
HOSTILE: list[tuple[tuple[str, ...], Any, str]] = [
    (FILE, "../none.csv", "datasets.reviews.source: there is no '../none.csv'. Mend: correct the path; it is relative to"),
    (FILE, "/dev/zero", "datasets.reviews.source: '/dev/zero' is neither a file nor a folder. Mend: give the path of a"),
    (FILE, "pipe", "datasets.reviews.source: 'pipe' is neither a file nor a folder"),
    (FILE, "data", "datasets.reviews.source: 'data' is a folder. Mend: give the path of a file."),
    (FILE, "a\0b", r"datasets.reviews.source.file: it holds the character '\x00', which does not print. Mend: remove it."),
    (FILE, "x" * 5000, "datasets.reviews.source: 'xxxxx"),
    (FILE, "", "datasets.reviews.source.file: '' will not do: string should have at least 1 character"),
    (FOLDER, "x.csv", "models.mine.source: 'x.csv' is a file. Mend: give the path of a folder."),
    (FOLDER, "x.csv/inside", "models.mine.source: there is no 'x.csv/inside'"),
    (("datasets", "reviews", "title"), "\ud800", r"datasets.reviews.title: it holds the character '\ud800', which does"),
    (("datasets", "reviews", "title"), "\x1b[2J", r"datasets.reviews.title: it holds the character '\x1b'"),
    (("datasets", "reviews", "title"), "x" * 201, "datasets.reviews.title: 'xxxxx"),
    (("datasets", "reviews", "text"), nested("x", 9, width=9), "config: it holds more than 100000 values"),
    (("datasets", "reviews", "text"), nested("x", 100_000), "datasets.reviews.text.0.0.0"),
    (("datasets", "reviews", "text"), holding_itself(), "datasets.reviews.text.0.0.0"),
    (("datasets", "../../out"), {"source": {"file": "x.csv"}}, "datasets.../../out: '../../out' is not an id. Mend: use"),
    (("datasets", "a\n"), {"source": {"file": "x.csv"}}, "datasets.a: 'a\\n' is not an id"),
    (("models", "text"), {"source": {"folder": "data"}}, "models.text: this id is taken by the workflow itself"),
    (("saes", 1 << 20_000), {}, "saes: it holds a whole number beyond 9223372036854775807. Mend: write a smaller one."),
    (("seed",), 1 << 20_000, "seed: it holds a whole number beyond 9223372036854775807"),
    (("seed",), -1, "seed: -1 will not do"),
    (("probes", "strict", "c"), [math.inf], "probes.strict.c.0: inf will not do: input should be a finite number"),
    (("probes", "thresholds"), [math.nan], "probes.thresholds.0: nan will not do: input should be a finite number"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "line"), HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_what_no_key_can_mean_is_refused_where_it_stands(
    here: None, path: tuple[Any, ...], value: Any, line: str
) -> None:
    os.mkfifo("pipe")
    config = own_config()
    holder: Any = config
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    refused = refusal(config)
    assert refused
    assert refused.startswith(line)
    assert refused.isprintable()


@pytest.mark.parametrize(
    "content",
    [
        "seed: 2026-13-45",
        f"seed: {'9' * 5000}",
        f"seed: {'[' * 5000}{']' * 5000}",
        "seed: !!python/object/apply:os.getcwd []",
        "seed: &a [*b]",
        "{a: 1}: 2",
        "seed: \x00",
    ],
    ids=["no-date", "long-number", "deep", "code", "no-anchor", "key", "character"],
)
def test_a_file_that_yaml_trips_over_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=r"mine\.yaml: not readable as YAML \(.*\)\. Mend: correct the file\.$"):
        config_file.check_files([tmp_path / "mine.yaml"])


def test_the_configs_that_are_changed_are_right(here: None) -> None:
    assert [refusal(raw) for raw in RIGHT] == [None] * len(RIGHT)
