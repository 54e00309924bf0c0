"""The small parts of the report: what a run cost, how to cite it, charts, and characters that would act."""

import json
import re
from pathlib import Path

import pytest

import tessera
from tessera.quoting import in_a_strip, on_a_page
from tessera.report import charts, citation, spending

ROOT = Path(__file__).parents[2]
COLUMNS = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"


def benchmark(path: Path, seconds: str, memory: str, core: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{COLUMNS}\n{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0\t0\t90\t{core}\n", encoding="utf-8")


def test_stages_add_up_jobs_and_name_the_most_memory(tmp_path: Path) -> None:
    benchmark(tmp_path / "probe/large/requests/a.tsv", "61.2", "300.4", "55")
    benchmark(tmp_path / "probe_text/requests/majority.tsv", "2.0", "-", "-")
    benchmark(tmp_path / "tables.tsv", "5", "200", "4")
    benchmark(tmp_path / "something_new/a.tsv", "0.1", "NA", "0.1")
    benchmark(tmp_path / "report.tsv", "900", "9000", "900")
    rows = {row["stage"]: row for row in spending.stages(tmp_path)}
    assert list(rows) == ["Probes", "Tables, scoreboard and findings", "something_new", "All jobs"]
    assert rows["Probes"] == {
        "stage": "Probes", "jobs": "2", "seconds": "1 min 3 s", "longest": "1 min 1 s", "core": "55 s", "memory": "300 MB",
    }  # fmt: skip
    assert rows["something_new"]["memory"] == ""
    assert (rows["All jobs"]["jobs"], rows["All jobs"]["seconds"]) == ("4", "1 min 8 s")


def test_a_folder_without_benchmarks_has_no_stages(tmp_path: Path) -> None:
    assert spending.stages(tmp_path) == []


def test_every_rule_with_a_benchmark_has_a_stage() -> None:
    named = {rule for rules in spending.STAGES.values() for rule in rules} | spending.LEFT_OUT
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.findall(r'"results/benchmarks/([a-z_]+)', path.read_text(encoding="utf-8")):
            assert rule in named, f"{path.name}: {rule}"


def test_what_models_read_is_counted_and_timed(tmp_path: Path) -> None:
    manifests = []
    for dataset, tokens in (("a", 900), ("b", 300)):
        path = tmp_path / "activations/large" / dataset / "0123456789/manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"examples": 10, "tokens": {"content": 1, "read": tokens}}), encoding="utf-8")
        manifests.append(path)
    benchmark(tmp_path / "benchmarks/capture/large/a/0123456789.tsv", "3", "1", "1")
    (row,) = spending.reading(manifests, tmp_path / "benchmarks", {"large": "Large"})
    assert row == {"model": "Large", "passes": "2", "examples": "20", "tokens": "1,200", "rate": "300"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.6, "60 s"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds: float, words: str) -> None:
    assert spending.duration(seconds) == words


def test_the_citation_is_that_of_the_file_and_of_this_version() -> None:
    found = citation.read(ROOT / "CITATION.cff")
    study, software = found["works"]
    assert study["authors"].endswith("Thomas Hartvigsen and Danielle S. Bitterman")
    assert study["rest"] == "EMNLP 2025. arXiv 2502.11367."
    assert software["rest"] == f"Version {tessera.__version__}."
    assert "@inproceedings{gallifant2025," in found["bibtex"]
    assert found["bibtex"].count("{") == found["bibtex"].count("}")


def test_an_interval_is_drawn_where_its_numbers_are() -> None:
    drawn = str(charts.interval(charts.Scale(-1, 1, 108), 0.5, 0.0, 1.0, zero=True))
    assert 'cx="79.0"' in drawn
    assert "M54.0 8.0H104.0" in drawn
    assert 'd="M54.0 1V15"' in drawn
    assert "whisker" not in str(charts.interval(charts.Scale(0, 1), 0.5, None, None))


def test_bars_stay_within_their_place() -> None:
    assert "H100v" not in str(charts.bar(2.0))
    assert 'd="M0 0H100V10H0z"' in str(charts.bar(2.0))
    assert 'd="M0 0H0V10H0z"' in str(charts.bar(-1.0))
    assert 'class="against"' in str(charts.push(charts.Scale(-1, 1), -0.3))


def test_the_larger_a_value_the_hotter_and_nothing_is_cold() -> None:
    levels = [charts.level(value, 8.0) for value in (0, 0.001, 1, 2, 4, 7.99, 8)]
    assert levels == sorted(levels)
    assert (levels[0], levels[1], levels[-1]) == (0, 1, charts.LEVELS)


def test_characters_that_would_act_are_shown_and_scripts_of_all_directions_are_left() -> None:
    assert (
        on_a_page("a\x00b\x1b\x7f\x85\u202e\u2066\ufeff\ud800")
        == "a\u2400b\u241b\u2421[U+0085][U+202E][U+2066][U+FEFF]\ufffd"
    )
    kept = "tab\there\nline \u0645\u0631\u062d\u0628\u0627 \u200d\u200c\u200f \N{FAMILY}"
    assert on_a_page(kept) == kept
    assert in_a_strip("a\r\nb\tc") == "a\u21b5b\u21e5c"
