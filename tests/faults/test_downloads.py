"""Downloads that meet trouble: what passes is waited out, what does not is one line, and what arrives is what the Hub has."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disks import way_to_mount
from hub_served import OTHER_REVISION, PIECE, REVISION, SECRET, Asked, Fault, Hub, Worker
from saes_made import random_sae
from worlds import World, own_config, own_world

from tessera.files import read_json, write_json
from tessera.hub import WAITS
from tessera.saes import CONFIG, WEIGHTS

TRIES = len(WAITS) + 1
ALWAYS = 1000
WEIGHT_FILES = {"models": "model.safetensors", "datasets": "train.parquet", "saes": "blocks/sae_weights.safetensors"}
KEYS = {"models": "models.m.source", "datasets": "datasets.d.source.hub", "saes": "saes.s.source"}
GEMMA_SCOPE, GEMMA_WIDTH = "google/gemma-scope-2b-pt-res", 16384

Ask = Callable[..., tuple[str | None, int | None]]


@pytest.fixture(scope="module")
def hub(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Every repository `owner/...` has the tiny model and a small SAE; every dataset is a table of 300 rows."""
    sae = tmp_path_factory.mktemp("sae")
    random_sae(sae, "jumprelu", layer=1)
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    files |= {f"blocks/{name}": (sae / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    table = io.BytesIO()
    rows = [f"text {number}" for number in range(300)]
    pq.write_table(pa.table({"text": rows, "label": ["a", "b", "c"] * 100}), table)
    served = Hub({"models": files, "datasets": {"train.parquet": table.getvalue()}})
    yield served
    served.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def worker(hub: Hub, home: Path) -> Iterator[Worker]:
    started = Worker(hub, home)
    yield started
    started.kill()


@pytest.fixture
def ask(worker: Worker, tmp_path: Path) -> Ask:
    """Fetch something of repository `owner/{repo}` into the folder `{section}/{repo}`."""
    return asking(worker, tmp_path)


def asking(worker: Worker, folder: Path) -> Ask:
    record = folder / "model.json"
    write_json(record, {"layers": 4, "hidden_size": 32, "attention_size": 32})

    def ask(section: str, repo: str, **kwargs: Any) -> tuple[str | None, int | None]:
        entry = None
        if section == "saes":
            source = {"release": f"owner/{repo}", "id": "blocks"}
            entry = {"source": source, "model": "m", "layer": 1, "site": "resid_post", "width": 96}
            entry |= {"record": str(record), **kwargs.pop("entry", {})}
        return worker.ask(section, repo, folder=folder / section / repo, entry=entry, **kwargs)

    return ask


def stored(hub: Hub, folder: Path, section: str, repo: str) -> bool:
    """Whether the weights that were brought are the ones that are served; a dataset's rows are counted instead."""
    served = hub.files["models"]
    if section == "models":
        return (folder / "models" / repo / "model.safetensors").read_bytes() == served["model.safetensors"]
    return read_json(folder / "saes" / repo / "revision.json")["commit"] == REVISION


PASSING = [
    ("busy", Fault("", 503, 2), list(WAITS[:2])),
    ("limited", Fault("", 429, 2, {"Retry-After": "7"}), [8.0, 8.0]),
    ("cut", Fault("", "cut", 2), [1, 1]),
    ("silent", Fault("", "silent"), [1]),
    ("damaged", Fault("", "damaged"), None),
]


@pytest.mark.parametrize("section", list(WEIGHT_FILES))
@pytest.mark.parametrize(("name", "fault", "rests"), PASSING, ids=[name for name, *_ in PASSING])
def test_trouble_that_passes_is_waited_out(
    hub: Hub, worker: Worker, ask: Ask, tmp_path: Path, section: str, name: str, fault: Fault, rests: list[float] | None
) -> None:
    file, repo = WEIGHT_FILES[section], f"passing-{name}"
    with hub.playing(Fault(file, fault.kind, fault.times, fault.headers)) as asked:
        said, rows = ask(section, repo)
    assert said is None
    assert rows == 300 if section == "datasets" else stored(hub, tmp_path, section, repo)
    assert not hub.faults
    if rests is not None:
        assert worker.rested == rests
    content = hub.files["datasets" if section == "datasets" else "models"][file]
    resumed = [request.bytes for request in asked if request.bytes]
    assert resumed == resuming(len(content), {"cut": 2, "silent": 1}.get(name, 0))


def resuming(size: int, times: int) -> list[str]:
    """What the client asks for that has lost its connection so many times, each time half way to the end."""
    start, found = 0, []
    for _ in range(times):
        start += ((start + size) // 2 - start) // PIECE * PIECE
        found.append(f"bytes={start}-")
    return found


LASTING = [
    (
        "busy",
        Fault("", 503, ALWAYS),
        "the Hub answered with status 503 for '{}'. Mend: run again later; what has arrived",
    ),
    (
        "limited",
        Fault("", 429, ALWAYS, {"Retry-After": "7"}),
        "(status 429). Mend: run again in 7 s or later; what has",
    ),
    ("cut", Fault("", "cut", ALWAYS), "the connection breaks off again and again while '{}' is fetched. Mend: check"),
    ("damaged", Fault("", "damaged", ALWAYS), "a file of '{}' is not what the Hub says it is: "),
]


@pytest.mark.parametrize("section", list(WEIGHT_FILES))
@pytest.mark.parametrize(("name", "fault", "words"), LASTING, ids=[name for name, *_ in LASTING])
def test_trouble_that_lasts_is_one_line_and_afterwards_only_what_lacks_is_fetched(
    hub: Hub, ask: Ask, tmp_path: Path, section: str, name: str, fault: Fault, words: str
) -> None:
    file, repo = WEIGHT_FILES[section], f"lasting-{name}"
    with hub.playing(Fault(file, fault.kind, fault.times, fault.headers)) as asked:
        said, _ = ask(section, repo)
    assert said
    assert said.startswith(f"{KEYS[section]}: ")
    assert words.format(f"owner/{repo}") in said
    assert "\n" not in said
    assert len([request for request in asked if request.path.startswith("/storage/")]) >= TRIES
    before = fetched(asked)
    with hub.playing() as asked:
        said, rows = ask(section, repo)
    assert said is None
    assert rows == 300 if section == "datasets" else stored(hub, tmp_path, section, repo)
    assert fetched(asked) & before == {file.rsplit("/", 1)[-1]}


def fetched(asked: list[Asked]) -> set[str]:
    """The files whose content was asked for."""
    return {
        request.path.rsplit("/", 1)[1] for request in asked if request.method == "GET" and "/api/" not in request.path
    }


REFUSALS = [
    ("gated", {}, "is gated, and this token may not read it. Mend: accept its terms on http://127.0.0.1:"),
    ("missing", {}, "the Hub shows no 'owner/missing'. Mend: check the name; if it is private, set HF_TOKEN"),
    ("refused", {}, "the Hub does not know the token that 'owner/refused' is asked for with (status 401). Mend: set HF_TOKEN"),
    ("barred", {}, "the Hub refused 'owner/barred' with status 403. Mend: set HF_TOKEN to a token that may read it"),
    ("fine", {"revision": OTHER_REVISION}, "'owner/fine' has no such revision. Mend: give the hash of a commit on its page"),
]  # fmt: skip


@pytest.mark.parametrize(("repo", "changed", "words"), REFUSALS, ids=[name for name, *_ in REFUSALS])
def test_a_release_of_saes_that_is_refused_is_one_line(
    ask: Ask, worker: Worker, repo: str, changed: dict[str, Any], words: str
) -> None:
    said, _ = ask("saes", repo, **changed)
    assert said
    assert said.startswith("saes.s.source: ")
    assert words in said
    assert "\n" not in said
    assert worker.rested == []


def test_an_sae_that_the_repository_does_not_hold_is_one_line(ask: Ask) -> None:
    source = {"release": "owner/other", "id": "nowhere"}
    said, _ = ask("saes", "other", entry={"source": source})
    assert said == "saes.s.source: 'owner/other' lacks a file that is needed. Mend: check the id and the revision."


def test_an_sae_is_fetched_at_its_commit(hub: Hub, ask: Ask) -> None:
    with hub.playing() as asked:
        assert ask("saes", "pinned") == (None, None)
    assert {request.path.split("/")[4] for request in asked if "/resolve/" in request.path} == {REVISION}


def test_without_a_token_a_gated_repository_asks_for_one(hub: Hub, tmp_path: Path) -> None:
    worker = Worker(hub, tmp_path, token=None)
    ask = asking(worker, tmp_path)
    try:
        for section, page in (("models", "owner/gated"), ("datasets", "datasets/owner/gated"), ("saes", "owner/gated")):
            said, _ = ask(section, "gated")
            mend = f"accept its terms on http://127.0.0.1:{hub.port}/{page} and set HF_TOKEN to a token of that account"
            assert said == f"{KEYS[section]}: 'owner/gated' is gated, and there is no token. Mend: {mend}."
        with hub.playing(Fault("model.safetensors", 429, ALWAYS)):
            said, _ = ask("models", "nobody")
        assert said
        assert "run again later; what has arrived whole is kept, and a token in HF_TOKEN raises the limit." in said
    finally:
        worker.kill()


def test_a_canonical_release_of_gemma_scope_comes_through_sae_lens(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    """The weights are zeros of the real size, which pack well."""
    packed = io.BytesIO()
    shapes = {"W_enc": (2304, GEMMA_WIDTH), "W_dec": (GEMMA_WIDTH, 2304), "b_enc": GEMMA_WIDTH, "b_dec": 2304}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    np.savez_compressed(packed, **zeros, threshold=np.ones(GEMMA_WIDTH, np.float32))
    place = "layer_12/width_16k/average_l0_82/params.npz"
    hub.own[GEMMA_SCOPE] = {place: packed.getvalue()}
    write_json(tmp_path / "gemma.json", {"layers": 26, "hidden_size": 2304, "attention_size": 2048})
    source = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"}
    entry = {"source": source, "layer": 12, "width": GEMMA_WIDTH, "record": str(tmp_path / "gemma.json")}
    with hub.playing(Fault(place, "cut")) as asked:
        assert ask("saes", "gemma", entry=entry) == (None, None)
    assert [request.bytes for request in asked if request.bytes] == resuming(len(packed.getvalue()), 1)
    record = read_json(tmp_path / "saes/gemma/revision.json")
    assert (record["architecture"], record["d_sae"], record["commit"]) == ("jumprelu", GEMMA_WIDTH, REVISION)
    # 300 MB, and pytest keeps the folders of several runs.
    shutil.rmtree(tmp_path / "saes/gemma")


@pytest.mark.parametrize("section", list(WEIGHT_FILES))
def test_a_full_disk_is_said_to_be_full(hub: Hub, tmp_path: Path, section: str) -> None:
    """The disk is real, in memory, and a few pages big."""
    disk = tmp_path / ("models" if section == "models" else "cache")
    disk.mkdir()
    way = way_to_mount(disk)
    size = "8k" if section == "datasets" else "20k"
    mount = f'mount -t tmpfs -o size={size} none {disk} && exec "$@"'
    worker = Worker(hub, tmp_path, prefix=(*way, "sh", "-c", mount, "sh"))
    try:
        said, _ = asking(worker, tmp_path)(section, "full")
    finally:
        worker.kill()
    assert said
    assert said.startswith(str(disk))
    assert said.endswith(": No space left on device")


def test_the_token_is_in_no_message_no_file_and_no_output(hub: Hub, worker: Worker, ask: Ask, home: Path, tmp_path: Path) -> None:  # fmt: skip
    said = []
    for section, file in WEIGHT_FILES.items():
        with hub.playing(Fault(file, 503, ALWAYS)) as asked:
            said.append(ask(section, "token"))
        assert f"Bearer {SECRET}" in {request.token for request in asked}
        said += [ask(section, repo) for repo in ("gated", "refused", "missing")]
    assert all(line for line, _ in said)
    assert SECRET not in json.dumps(said)
    written = [path for folder in (home, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert worker.stderr in written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_the_workflow_asks_the_hub_in_jobs_that_fetch_and_in_no_other(
    hub: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    world: World = own_world(tmp_path / "world", tiny_model)
    config = own_config()
    config["models"]["mine"]["source"] = {"hub": "owner/workflow", "revision": REVISION}
    settings = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": SECRET,
        "NO_PROXY": "127.0.0.1,localhost",
    }
    with hub.playing():
        world.run("--dry-run", config=config, environment=settings)
        assert hub.asked == []
        world.run("results/models/mine/revision.json", environment=settings)
        assert hub.asked != []
    with hub.playing() as asked:
        world.run("captures", environment=settings)
        assert asked == []
    offline = {**settings, "HF_HUB_OFFLINE": "1"}
    config["models"]["other"] = {**config["models"]["mine"], "source": {"hub": "owner/late", "revision": REVISION}}
    printed = world.run("results/models/other/revision.json", config=config, check=False, environment=offline)
    assert "models.other.source: the Hub cannot be reached for 'owner/late'" in printed
    written = [path for path in world.folder.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
