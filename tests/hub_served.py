"""A Hub of our own on loopback, and a process that fetches from it: the real clients, and the faults that they meet.

Large files are redirected to a storage of another name, as the Hub does, and their hash is told in a header. A
repository refuses as its name says; other faults are played for a file, so many times, and then all is well again.
Refusals repeat the token that they were asked with, as a careless proxy might, so that a leak of it shows.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

from worlds import ROOT

PIECE = 1024
REVISION, OTHER_REVISION = "a" * 40, "b" * 40
SECRET = "looks-like-no-token-of-the-hub"  # noqa: S105 - a made-up one
LARGE = (".safetensors", ".npz", ".parquet")
# Repository name -> what it answers; of `gated` and `private` the files, of the others everything.
REFUSED = {"missing": (404, "RepoNotFound"), "broken": (500, ""), "refused": (401, ""), "barred": (403, "")}

WORKER = (
    f"PIECE = {PIECE}"
    + """
import json, sys, time
from pathlib import Path
from huggingface_hub import constants
from tessera import model_snapshots, sae_snapshots, sources
from tessera.errors import UserError

rested = []
time.sleep = rested.append  # the client rests between its attempts, and so do we
constants.DOWNLOAD_CHUNK_SIZE = PIECE  # what is not a whole piece is lost with its connection; theirs is larger than our files
for line in sys.stdin:
    section, source, folder, entry = json.loads(line)
    said = rows = None
    rested.clear()
    try:
        if section == "models":
            model_snapshots.store("m", source, Path(folder), None)
        elif section == "saes":
            sae_snapshots.store("s", {"source": source, **entry}, Path(folder), None, Path(entry["record"]))
        else:
            rows = sources.read("d", {"text": "text", "label": "label", "source": source}).rows
    except UserError as error:
        said = str(error)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}"
    print(json.dumps([said, rows, rested]), flush=True)
"""
)


@dataclass
class Fault:
    """What happens to a file when it is asked for: a status, or its content is `damaged`, or `cut` or `silent` half way."""

    path: str
    kind: int | str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What one request asked for."""

    method: str
    path: str
    bytes: str | None
    token: str | None


class Hub:
    """A server of repositories, each at one commit. `files` are those of any repository of a section that has none of its own."""

    def __init__(self, files: dict[str, dict[str, bytes]]):
        self.files = files
        self.own: dict[str, dict[str, bytes]] = {}
        # Repository -> the token that opens its files.
        self.gated: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.slow: str | None = None
        self.half_sent = threading.Event()
        self.port = 0
        self.lock = threading.Lock()
        self.start()

    def start(self) -> None:
        hub, self.given_up = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Whoever asked may be gone before the answer is.
                try:
                    hub.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_HEAD = do_GET  # noqa: N815 - a name of http.server

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.given_up.set()
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

    @contextmanager
    def playing(self, *faults: Fault) -> Iterator[list[Asked]]:
        """While these faults happen; yields what is asked for in the meantime."""
        self.faults, self.asked = list(faults), []
        try:
            yield self.asked
        finally:
            self.faults = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        token = request.headers.get("Authorization")
        self.asked.append(Asked(request.command, request.path, request.headers.get("Range"), token))
        if stored := re.fullmatch(r"/storage/([\w-]+)/([^/]+)/([\w.-]+)/(.+)", request.path):
            section, owner, repo, path = stored.groups()
            self.send_file(request, path, self.held(section, f"{owner}/{repo}")[path])
            return
        address = r"/(?:api/)?(?:(models|datasets)/)?([\w.-]+)/([\w.-]+)(?:/(tree|resolve|revision)/(\w+)/?([^?]*))?(?:\?(.*))?"
        asked = re.fullmatch(address, request.path)
        if not asked:
            refuse(request, 404)
            return
        section, owner, repo, what, revision, path, query = asked.groups()
        section, what, revision = section or "models", what or "revision", revision or "main"
        files = self.held(section, f"{owner}/{repo}")
        if repo in REFUSED:
            refuse(request, *REFUSED[repo])
        elif revision not in (REVISION, "main"):
            refuse(request, 404, "RevisionNotFound")
        elif what == "tree":
            send_json(request, list(tree(files, path, recursive="recursive=true" in (query or "").lower())))
        elif what == "revision":
            siblings = [{"rfilename": name, **described(name, content)} for name, content in files.items()]
            send_json(request, {"id": f"{owner}/{repo}", "sha": REVISION, "siblings": siblings})
        elif repo == "gated" or not self.opens(f"{owner}/{repo}", token):
            refuse(request, 403 if token else 401, "GatedRepo")
        elif path not in files:
            refuse(request, 404, "EntryNotFound")
        elif path.endswith(LARGE):
            self.redirect(request, f"{section}/{owner}/{repo}/{path}", files[path])
        else:
            self.send_file(request, path, files[path])

    def held(self, section: str, repository: str) -> dict[str, bytes]:
        return self.own.get(repository, self.files.get(section, {}))

    def opens(self, repository: str, token: str | None) -> bool:
        return repository not in self.gated or token == f"Bearer {self.gated[repository]}"

    def fault(self, path: str, *kinds: type) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if path.endswith(fault.path) and fault.times and isinstance(fault.kind, kinds):
                    fault.times -= 1
                    return fault
        return None

    def redirect(self, request: BaseHTTPRequestHandler, place: str, content: bytes) -> None:
        request.send_response(302)
        request.send_header("Location", f"http://localhost:{self.port}/storage/{place}")
        request.send_header("X-Linked-Etag", f'"{sha256(content)}"')
        request.send_header("X-Linked-Size", str(len(content)))
        request.send_header("X-Repo-Commit", REVISION)
        request.end_headers()

    def send_file(self, request: BaseHTTPRequestHandler, path: str, content: bytes) -> None:
        fault = self.fault(path, int) or (self.fault(path, str) if request.command == "GET" else None)
        if fault and isinstance(fault.kind, int):
            refuse(request, fault.kind, headers=fault.headers)
            return
        if fault and fault.kind == "damaged":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))) else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("ETag", f'"{git_hash(content)}"')
        request.send_header("X-Repo-Commit", REVISION)
        request.end_headers()
        if request.command == "HEAD":
            return
        half = path == self.slow or (fault is not None and fault.kind != "damaged")
        request.wfile.write(content[start : (start + len(content)) // 2] if half else content[start:])
        request.wfile.flush()
        if path == self.slow or (fault and fault.kind == "silent"):
            self.half_sent.set()
            self.given_up.wait(60)


def described(name: str, content: bytes) -> dict[str, Any]:
    """A file as the Hub lists it; a large one is in git as a pointer to it."""
    large = {"lfs": {"sha256": sha256(content), "oid": sha256(content), "size": len(content), "pointerSize": 130}}
    found = {"size": len(content), "blobId": git_hash(content), "oid": git_hash(content)}
    return {**found, **large} if name.endswith(LARGE) else found


def tree(files: dict[str, bytes], folder: str, *, recursive: bool) -> Iterator[dict[str, Any]]:
    """What the Hub lists of a folder: files and folders in it, or all below it."""
    top = f"{folder}/" if folder else ""
    below = {name: content for name, content in files.items() if name.startswith(top)}
    above = {str(parent) for name in below for parent in PurePosixPath(name).parents} - {"."}
    folders = {name for name in above if name.startswith(top)}
    for name in sorted([*below, *folders]):
        if recursive or "/" not in name.removeprefix(top):
            yield {"type": "directory", "path": name, "oid": "c" * 40} if name in folders else listed(name, below[name])


def listed(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, **described(name, content)}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refuse(request: BaseHTTPRequestHandler, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
    told = f"not with {request.headers.get('Authorization')}"
    request.send_response(status)
    request.send_header("X-Error-Code", code)
    # This very message is what tells a bad token from a repository that is not shown.
    unknown = status == 401 and not code
    request.send_header("X-Error-Message", "Invalid credentials in Authorization header" if unknown else told)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(json.dumps({"error": told}).encode())


def send_json(request: BaseHTTPRequestHandler, content: Any) -> None:
    request.send_response(200)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(json.dumps(content).encode())


class Worker:
    """The process that fetches. Everything it says and writes lies under `home`."""

    def __init__(self, hub: Hub, home: Path, token: str | None = SECRET, prefix: tuple[str, ...] = ()):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
            "HF_HOME": str(home / "cache"),
            "HF_HUB_DOWNLOAD_TIMEOUT": "3",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(ROOT / "src"),
            **({"HF_TOKEN": token} if token else {}),
        }
        self.stderr = home / "stderr.txt"
        with self.stderr.open("a") as stderr:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", WORKER],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.rested: list[float] = []

    def request(
        self,
        section: str,
        repo: str,
        revision: str = REVISION,
        folder: Path | None = None,
        entry: dict[str, Any] | None = None,
    ) -> None:
        source: dict[str, Any] = {"hub": f"owner/{repo}", "revision": revision}
        if section == "datasets":
            source |= {"config": None, "configs": None, "splits": ["train"], "subset": None}
        if section == "saes":
            assert entry
            source = {**entry.pop("source"), "revision": revision}
        print(json.dumps([section, source, str(folder), entry]), file=self.process.stdin, flush=True)

    def ask(self, *args: Any, **kwargs: Any) -> tuple[str | None, int | None]:
        """What the user is told, if anything, and the number of a dataset's rows."""
        self.request(*args, **kwargs)
        assert self.process.stdout
        answer = self.process.stdout.readline()
        assert answer, f"the worker met what is no UserError:\n{self.stderr.read_text()[-3000:]}"
        said, rows, self.rested = json.loads(answer)
        return said, rows

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
