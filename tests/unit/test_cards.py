"""Jobs side by side: each has a card of its own, and no more of them start than there are cards."""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from tessera import cards
from tessera.cards import take
from tessera.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without cards, and the folder that its jobs share."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cards, "POLL", 0.01)
    monkeypatch.setattr(cards, "DRIVER", tmp_path / "gpus")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    install(monkeypatch, 0)
    return folder


def install(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_jobs_take_different_cards_and_leave_the_lock_files(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 2)
    with take("auto") as first, take("cuda") as second:
        assert (first, second) == ("cuda:0", "cuda:1")
    assert files(shared) == ["tessera-card-0.lock", "tessera-card-1.lock"]
    with take("auto") as again:
        assert again == "cuda:0"


@pytest.mark.parametrize("number", [1, 2])
def test_a_job_too_many_says_once_that_it_waits_and_takes_the_card_that_is_released(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, number)
    looks, found = threading.Semaphore(0), []
    sleep = cards.time.sleep

    def counted_sleep(seconds: float) -> None:
        looks.release()
        sleep(seconds)

    def late() -> None:
        with take("auto") as device:
            found.append(device)

    monkeypatch.setattr(cards.time, "sleep", counted_sleep)
    with caplog.at_level(logging.INFO, "tessera"):
        thread = threading.Thread(target=late)
        with ExitStack() as others:
            for _ in range(number - 1):
                others.enter_context(take("auto"))
            with take("auto") as last:
                thread.start()
                assert all(looks.acquire(timeout=10) for _ in range(3))
                assert found == []
            thread.join(timeout=10)
    assert found == [last]
    assert caplog.messages == [f"waiting for a card: {', '.join('01'[:number])} taken by other jobs"]


def test_a_card_is_released_when_the_job_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 1)
    with pytest.raises(ValueError, match="a bug"), take("auto"):
        raise ValueError("a bug")
    with take("auto") as device:
        assert device == "cuda:0"


# Its torch is a stand-in, because the real one takes seconds to import.
PROGRAM = """
import sys, time
from types import SimpleNamespace
sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 2))
from tessera.cards import take
with take("auto") as device:
    print(device, flush=True)
    time.sleep(600)
"""


def test_a_killed_job_frees_its_card(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 2)
    env = os.environ | {"TMPDIR": str(shared), "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "cuda:0\n"
            with take("auto") as device:
                assert device == "cuda:1"
        finally:
            process.send_signal(signal.SIGKILL)
    with take("auto") as device:
        assert device == "cuda:0"


def test_the_listed_cards_are_taken_in_their_order_under_their_own_names(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    with take("auto") as first, take("auto") as second:
        assert (first, second) == ("cuda:0", "cuda:1")
        assert files(shared) == ["tessera-card-1.lock", "tessera-card-3.lock"]
    with take("auto"):
        with pytest.raises(Timeout):
            FileLock(shared / "tessera-card-3.lock").acquire(blocking=False)
        with FileLock(shared / "tessera-card-1.lock", blocking=False):
            pass


def test_an_index_is_the_same_card_whether_it_is_listed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 2)
    with take("auto") as unlisted:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with take("auto") as listed:
            assert (unlisted, listed) == ("cuda:0", "cuda:1")


def test_cards_can_be_listed_by_uuid(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c,MIG-GPU-5c89852c/1/0")
    with take("auto") as first, take("auto") as second:
        assert (first, second) == ("cuda:0", "cuda:1")
    assert files(shared) == ["tessera-card-GPU-8932f937-d72c.lock", "tessera-card-MIG-GPU-5c89852c_1_0.lock"]


def test_listed_cards_that_torch_does_not_find_are_no_candidates(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,9")
    with take("auto"):
        assert files(shared) == ["tessera-card-1.lock"]
        assert len(cards._candidates()) == 1


@pytest.mark.parametrize("listed", ["", "-1", "-1,0"])
def test_a_list_without_cards_hides_them_all(shared: Path, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    install(monkeypatch, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    with take("auto") as device:
        assert device == "cpu"
    with pytest.raises(UserError), take("cuda"):
        pass
    assert files(shared) == []


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_slurms_choice_is_left_alone(shared: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    install(monkeypatch, 2)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with take(wanted) as first, take(wanted) as second:
        assert (first, second) == ("cuda", "cuda")
    assert files(shared) == []


def test_without_a_card_nothing_is_locked(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with take("auto") as device:
        assert device == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with take("auto") as device:
        assert device == "mps"
    assert files(shared) == []


@pytest.mark.parametrize("wanted", ["cpu", "mps"])
def test_what_is_no_card_is_given_as_asked_for(shared: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    install(monkeypatch, 2)
    with take(wanted) as device:
        assert device == wanted
    assert files(shared) == []


def test_asking_for_a_card_where_there_is_none_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"^capture\.device: it is cuda, but torch finds no card here\. Mend: "
    ) as raised:
        take("cuda").__enter__()
    assert len(str(raised.value).splitlines()) == 1


def test_every_user_may_write_to_the_lock_file(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, 1)
    before = os.umask(0o077)
    try:
        with take("auto"):
            assert (shared / "tessera-card-0.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_refused_chmod_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    install(monkeypatch, 1)
    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "chmod", refuse)
    with take("auto") as device:
        assert device == "cuda:0"


def test_a_lock_file_that_may_not_be_written_is_one_line(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    install(monkeypatch, 1)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"tessera-card-0\.lock: you may not write to it"), take("auto"):
        pass


@pytest.mark.parametrize(
    ("present", "listed", "wanted", "number"),
    [
        (0, None, "auto", 0),
        (0, "0,1", "auto", 0),
        (2, None, "auto", 2),
        (2, None, "cuda", 2),
        (2, None, "cpu", 0),
        (4, "3,1", "auto", 2),
        (1, "MIG-a,MIG-b", "auto", 2),
        (2, "", "auto", 0),
        (2, "-1", "auto", 0),
    ],
)
def test_cards_are_counted_without_torch(
    monkeypatch: pytest.MonkeyPatch, present: int, listed: str | None, wanted: str, number: int
) -> None:
    for card in range(present):
        (cards.DRIVER / f"0000:0{card}:00.0").mkdir(parents=True)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cards.count(wanted) == number


SNAKEFILE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tessera import cards
cards.DRIVER = Path({driver!r})
CONFIG = SimpleNamespace(capture=SimpleNamespace(device="auto"))
{bound}
print("at most", workflow.global_resources.get("gpu").value, file=sys.stderr)
rule all:
    input: expand("{{name}}.done", name=list("abcd"))
rule capture:
    output: "{{name}}.done"
    resources: gpu=1
    shell: "mkdir -p running; touch running/{{wildcards.name}}; ls running | wc -l > {{output}};"
        " sleep 0.3; rm running/{{wildcards.name}}"
"""


def plan_of_four(tmp_path: Path, present: int, *options: str) -> str:
    """What Snakemake prints of four captures, with the lines of the workflow itself, where `present` cards are."""
    common = (ROOT / "workflow/rules/common.smk").read_text()
    (bound,) = re.findall(r"^if .*cards\.count.*\n(?:    .*\n)+", common, flags=re.MULTILINE)
    for card in range(present):
        (cards.DRIVER / str(card)).mkdir(parents=True)
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(driver=str(cards.DRIVER), bound=bound))
    command = [sys.executable, "-m", "snakemake", "--cores", "8", *options]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_no_more_captures_run_at_once_than_there_are_cards(tmp_path: Path) -> None:
    assert "at most 2\n" in plan_of_four(tmp_path, 2)
    running = [int(path.read_text()) for path in tmp_path.glob("*.done")]
    assert len(running) == 4
    assert max(running) <= 2


@pytest.mark.parametrize(
    ("present", "options", "most"),
    [
        pytest.param(0, [], None, id="no cards"),
        pytest.param(2, ["--resources", "gpu=1"], 1, id="the command line wins"),
        pytest.param(2, ["--jobs", "9"], None, id="only a cluster has a number of jobs besides that of cores"),
    ],
)
def test_nothing_else_is_bounded(tmp_path: Path, present: int, options: list[str], most: int | None) -> None:
    assert f"at most {most}\n" in plan_of_four(tmp_path, present, "--dry-run", *options)
