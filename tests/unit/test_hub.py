"""What comes from the Hub, and what is said when it does not come: a server on this machine answers as the Hub does.

The Hub's client reads its settings when it is imported, so what is tested runs in a process of its own: a worker that
takes one request a line. Its token is a secret that the server repeats in its refusals, as a careless proxy might.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hub_served import OTHER_REVISION, REVISION, SECRET, Hub, Worker

from tessera.files import read_json
from tessera.snapshots import NOTES, RECORD

RUNNABLE = ("pytorch_model.bin", "modeling_tiny.py")


@pytest.fixture(scope="module")
def hub(tiny_model: Path) -> Iterator[Hub]:
    model = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    table = b'{"text": "a", "label": "b"}\n' * 3
    server = Hub({"models": {**model, **dict.fromkeys(RUNNABLE, b"x")}, "datasets": {"train.jsonl": table}})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def workers(hub: Hub, home: Path) -> Iterator[list[Worker]]:
    """Two, of which one test kills the second; they start at the same time, because that takes seconds."""
    both = [Worker(hub, home), Worker(hub, home)]
    yield both
    for worker in both:
        worker.kill()


Ask = Callable[..., tuple[str | None, int | None]]


@pytest.fixture
def ask(workers: list[Worker]) -> Ask:
    return workers[0].ask


def test_a_model_is_fetched_at_its_revision_without_what_could_run(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    assert ask("models", "fine", folder=tmp_path) == (None, None)
    record = read_json(tmp_path / "revision.json")
    assert record["source"] == {"hub": "owner/fine", "revision": REVISION}
    assert set(record["files"]) == set(hub.files["models"]) - set(RUNNABLE)
    assert {path.name for path in tmp_path.iterdir()} == {*record["files"], RECORD, NOTES}
    assert (tmp_path / "model.safetensors").read_bytes() == hub.files["models"]["model.safetensors"]


def test_a_dataset_is_fetched_at_its_revision(ask: Ask) -> None:
    assert ask("datasets", "fine") == (None, 3)


REFUSALS = [
    ("gated", REVISION, "hub", "is gated"),
    ("missing", REVISION, "hub", "the Hub shows no 'owner/missing'"),
    ("fine", OTHER_REVISION, "revision", "'owner/fine' has no such revision"),
    ("broken", REVISION, "hub", "the Hub answered with status 500"),
    ("refused", REVISION, "hub", "does not know the token"),
    ("barred", REVISION, "hub", "with status 403. Mend: set HF_TOKEN"),
]


@pytest.mark.parametrize(("repo", "revision", "part", "words"), REFUSALS)
def test_a_refusal_is_one_line_about_the_source(
    ask: Ask, tmp_path: Path, repo: str, revision: str, part: str, words: str
) -> None:
    for section, key in (("models", "models.m.source"), ("datasets", f"datasets.d.source.{part}")):
        said, _ = ask(section, repo, revision, tmp_path / "stored")
        assert said
        assert said.startswith(f"{key}: ")
        assert words in said
        assert "\n" not in said
    assert not (tmp_path / "stored/revision.json").exists()


@pytest.mark.parametrize(("section", "key"), [("models", "models.m.source"), ("datasets", "datasets.d.source.hub")])
def test_a_hub_that_cannot_be_reached_is_said_to_be(ask: Ask, hub: Hub, tmp_path: Path, section: str, key: str) -> None:
    with hub.away():
        said, _ = ask(section, "unreachable", folder=tmp_path / "stored")
    assert said
    assert said.startswith(f"{key}: the Hub cannot be reached")
    assert "\n" not in said


def test_the_token_reaches_the_hub_and_no_message_no_file_and_no_output(
    ask: Ask, hub: Hub, home: Path, tmp_path: Path
) -> None:
    said = [ask("models", "fine", folder=tmp_path / "fine")]
    for repo, revision, _, _ in REFUSALS:
        said += [ask(section, repo, revision, tmp_path / repo) for section in ("models", "datasets")]
    # The storage of large files is another server, which is told no token.
    of_owner = [asked for asked in hub.asked if "/owner/" in asked.path]
    assert {(asked.path.startswith("/storage/"), asked.token) for asked in of_owner} == {
        (False, f"Bearer {SECRET}"),
        (True, None),
    }
    assert SECRET not in str(said)
    written = [path for folder in (home, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert home / "stderr.txt" in written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_a_download_that_was_killed_half_way_completes(workers: list[Worker], hub: Hub, tmp_path: Path) -> None:
    hub.slow = "model.safetensors"
    workers[1].request("models", "fine", folder=tmp_path)
    assert hub.half_sent.wait(60)
    workers[1].kill()
    hub.slow = None
    hub.given_up.set()
    assert not (tmp_path / "revision.json").exists()
    assert workers[0].ask("models", "fine", folder=tmp_path) == (None, None)
    record = read_json(tmp_path / "revision.json")
    assert {path.name for path in tmp_path.iterdir()} == {*record["files"], RECORD, NOTES}
    for name in record["files"]:
        assert (tmp_path / name).read_bytes() == hub.files["models"][name]


@pytest.mark.parametrize("reachable", [True, False])
def test_a_model_that_was_stored_before_does_not_stand_in_for_another_revision(
    ask: Ask, hub: Hub, tmp_path: Path, reachable: bool
) -> None:
    assert ask("models", "fine", folder=tmp_path) == (None, None)
    with nullcontext() if reachable else hub.away():
        said, _ = ask("models", "broken", OTHER_REVISION, tmp_path)
    assert said
