"""A config is pinned in place, from what a Hub of our own on loopback answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from tessera import pins
from tessera.errors import UserError

COMMITS = {"/api/datasets/own/reviews": "1" * 40, "/api/models/own/model": "a" * 40}

CONFIG = """\
# Ours.
datasets:
  reviews:            # the shop's
    source: {hub: own/reviews, revision: unpinned, splits: [train]}
  again:
    source:
      hub: own/reviews
      revision: 'unpinned'  # as above
  local: {source: {file: unpinned.csv}, text: "é unpinned"}
models:
  mine: {source: {hub: own/model, revision: unpinned}}
  old: {source: {hub: own/model, revision: BBBB}}
"""


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)  # type: ignore[attr-defined]
        self.send_response(200 if path in COMMITS else 404)
        self.send_header("Content-Type", "application/json")
        if path not in COMMITS:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        body = {"id": path.partition("/own/")[2], "sha": COMMITS.get(path), "siblings": [], "tags": []}
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def api(hub: HTTPServer) -> HfApi:
    return HfApi(endpoint=f"http://127.0.0.1:{hub.server_port}", token=False)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_only_the_word_unpinned_changes(tmp_path: Path, hub: HTTPServer) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG.replace("BBBB", "b" * 40), encoding="utf-8")
    assert pins.pin(path, api(hub)) == {"own/reviews": "1" * 40, "own/model": "a" * 40}
    one, two = f'"{"1" * 40}"', f'"{"a" * 40}"'
    expected = CONFIG.replace("BBBB", "b" * 40).replace("reviews, revision: unpinned", f"reviews, revision: {one}")
    expected = expected.replace("'unpinned'", one).replace("model, revision: unpinned", f"model, revision: {two}")
    assert path.read_text(encoding="utf-8") == expected
    assert yaml.safe_load(expected)["datasets"]["again"]["source"]["revision"] == "1" * 40


def test_each_repository_is_asked_for_once_and_none_when_all_are_pinned(tmp_path: Path, hub: HTTPServer) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    pins.pin(path, api(hub))
    before = path.read_bytes()
    assert sorted(hub.asked) == sorted(COMMITS)  # type: ignore[attr-defined]
    assert pins.pin(path, api(hub)) == {}
    assert len(hub.asked) == len(COMMITS)  # type: ignore[attr-defined]
    assert path.read_bytes() == before


def test_a_repository_that_is_not_there_is_one_line_and_leaves_the_file(tmp_path: Path, hub: HTTPServer) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG.replace("own/model", "own/none"), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"models\.mine\.source: the Hub shows no 'own/none'"):
        pins.pin(path, api(hub))
    assert path.read_bytes() == before


def test_a_missing_file_and_no_file_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pins.main([str(tmp_path / "none.yaml")]) == 1
    assert pins.main([]) == 1
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "there is no such config file. Mend",
        "no config file is given. Mend",
    ]
