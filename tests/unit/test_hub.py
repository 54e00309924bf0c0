"""What comes from the Hub, and what is said when it does not come: a server on this machine answers as the Hub does.

The Hub's client reads its settings when it is imported, so what is tested runs in a process of its own: a worker that
takes one request a line. Its token is a secret that the server repeats in its refusals, as a careless proxy might.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tessera.files import read_json

REVISION, OTHER_REVISION = "a" * 40, "b" * 40
SECRET = "looks-like-no-token-of-the-hub"  # noqa: S105 - a made-up one
RUNNABLE = ("pytorch_model.bin", "modeling_tiny.py")

WORKER = """
import json, sys, time
from pathlib import Path
from tessera import model_snapshots, sources
from tessera.errors import UserError

time.sleep = lambda seconds: None  # the client rests between its attempts
for line in sys.stdin:
    section, source, folder = json.loads(line)
    said = rows = None
    try:
        if section == "models":
            model_snapshots.store("m", source, Path(folder), None)
        else:
            rows = sources.read("d", {"text": "text", "label": "label", "source": source}).rows
    except UserError as error:
        said = str(error)
    print(json.dumps([said, rows]), flush=True)
"""


class Hub:
    """A server whose repositories all hold the same files, at one revision, and refuse as their names say.

    Of the file `slow`, half is sent; then `half_sent` is set, and nothing more comes.
    """

    def __init__(self, files: dict[str, dict[str, bytes]]):
        self.files = files
        self.tokens: set[str | None] = set()
        self.slow: str | None = None
        self.half_sent, self.given_up = threading.Event(), threading.Event()
        self.port = 0
        self.start()

    def start(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815 - a name of http.server

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """While nothing listens at the address."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        address = r"/(?:api/)?(?:models/|(datasets)/)?owner/(\w+)/(tree|resolve|revision)/(\w+)/?([^?]*)(?:\?.*)?"
        asked = re.fullmatch(address, request.path)
        if not asked:
            refuse(request, 404)
            return
        self.tokens.add(request.headers.get("Authorization"))
        section, repo, what, revision, path = asked.groups()
        files = self.files[section or "models"]
        if repo in ("missing", "broken", "refused"):
            refuse(request, *{"missing": (404, "RepoNotFound"), "broken": (500, ""), "refused": (401, "")}[repo])
        elif revision != REVISION:
            refuse(request, 404, "RevisionNotFound")
        elif what == "tree" and not path:
            send(request, json.dumps([listed(name, content) for name, content in files.items()]).encode())
        elif what == "revision":
            send(request, json.dumps({"id": f"owner/{repo}", "sha": REVISION, "siblings": []}).encode())
        elif repo == "gated":
            refuse(request, 403, "GatedRepo")
        elif path not in files:
            refuse(request, 404, "EntryNotFound")
        elif path == self.slow and request.command == "GET":
            send(request, files[path], half=True)
            self.half_sent.set()
            self.given_up.wait(60)
        else:
            send(request, files[path])


def listed(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": sha1(content)}


def sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def refuse(request: BaseHTTPRequestHandler, status: int, code: str = "") -> None:
    told = f"not with {request.headers.get('Authorization')}"
    request.send_response(status)
    request.send_header("X-Error-Code", code)
    # This very message is what tells a bad token from a repository that is not shown.
    request.send_header("X-Error-Message", "Invalid credentials in Authorization header" if status == 401 else told)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(json.dumps({"error": told}).encode())


def send(request: BaseHTTPRequestHandler, content: bytes, *, half: bool = False) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.send_header("ETag", f'"{sha1(content)}"')
    request.send_header("X-Repo-Commit", REVISION)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content[: len(content) // 2] if half else content)
        request.wfile.flush()


class Worker:
    """The process that fetches. Everything it says and writes lies under `home`."""

    def __init__(self, hub: Hub, home: Path):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
            "HF_HOME": str(home / "cache"),
            "HF_TOKEN": SECRET,
            "NO_PROXY": "127.0.0.1",
        }
        with (home / "stderr.txt").open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def request(self, section: str, repo: str, revision: str = REVISION, folder: Path | None = None) -> None:
        source = {"hub": f"owner/{repo}", "revision": revision}
        if section == "datasets":
            source |= {"config": None, "configs": None, "splits": ["train"], "subset": None}
        print(json.dumps([section, source, str(folder)]), file=self.process.stdin, flush=True)

    def ask(self, *args: Any, **kwargs: Any) -> tuple[str | None, int | None]:
        """What the user is told, if anything, and the number of a dataset's rows."""
        self.request(*args, **kwargs)
        assert self.process.stdout
        answer = self.process.stdout.readline()
        assert answer, "the worker met what is no UserError; its stderr tells"
        said, rows = json.loads(answer)
        return said, rows

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


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
    assert {path.name for path in tmp_path.iterdir()} == {*record["files"], "revision.json"}
    assert (tmp_path / "model.safetensors").read_bytes() == hub.files["models"]["model.safetensors"]


def test_a_dataset_is_fetched_at_its_revision(ask: Ask) -> None:
    assert ask("datasets", "fine") == (None, 3)


REFUSALS = [
    ("gated", REVISION, "hub", "is gated"),
    ("missing", REVISION, "hub", "the Hub shows no 'owner/missing'"),
    ("fine", OTHER_REVISION, "revision", "'owner/fine' has no such revision"),
    ("broken", REVISION, "hub", "the Hub answered with status 500"),
    ("refused", REVISION, "hub", "with status 401. Mend: set HF_TOKEN"),
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
    assert hub.tokens == {f"Bearer {SECRET}"}
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
    assert {path.name for path in tmp_path.iterdir()} == {*record["files"], "revision.json"}
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
