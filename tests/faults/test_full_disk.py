"""A capture on a disk that is full, and again once it has room. The disks are real, in memory, and a few pages big."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import FULL, PAGE, mounting, way_to_mount
from test_killed_capture import HEADS, Captures, Ran, Whole, kept, make_whole

from tessera import shards


class Disks(Captures):
    """Captures in a namespace of their own, which has disks that nobody else sees and that end with it."""

    def __init__(self, folder: Path, tiny_model: Path):
        super().__init__(folder, tiny_model, way_to_mount(folder))

    def disk(self, name: str, *options: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        self.command(*mounting(folder, *options))
        return folder

    def give_room(self, disk: Path) -> None:
        self.command(*mounting(disk, "remount", "size=64m", "nr_inodes=4096"))

    def seen(self, disk: Path) -> Path:
        """Where this process, outside of the namespace, finds the disk."""
        return Path(f"/proc/{self.process.pid}/root{disk}")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Disks]:
    made = Disks(tmp_path_factory.mktemp("disks"), tiny_model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(disks: Disks) -> Whole:
    return make_whole(disks)


def pages(path: Path) -> int:
    return -(-path.stat().st_size // PAGE)


def names_a_file_of(folder: Path, ran: Ran) -> str:
    """The file in `folder` that one line says it stopped at; fails if anything else is said of the error."""
    told = ran.log + ran.printed
    assert ran.status == 1, told
    assert "Traceback" not in told
    assert "Error" not in told
    errors = [line for line in told.splitlines() if " ERROR " in line]
    assert len(errors) == 1, told
    found = re.fullmatch(rf"\d\d:\d\d:\d\d ERROR {re.escape(str(folder))}/(\S+): {re.escape(FULL)}", errors[0])
    assert found, errors
    assert not found[1].endswith(".partial")
    return found[1]


def room(whole: Whole, pages_less: int = 0, share: float = 1) -> str:
    """The mount option for a disk that has room for so much of a capture."""
    return f"size={(int(share * sum(map(pages, whole.files))) - pages_less) * PAGE}"


def stop(disks: Disks, folder: Path) -> str:
    """Where a capture stops that has no room; it leaves nothing half written."""
    stopped = names_a_file_of(folder, disks.run(folder))
    assert not list(disks.seen(folder).rglob("*.partial"))
    return stopped


def resume(disks: Disks, disk: Path, folder: Path, whole: Whole) -> None:
    """Give the disk room; the same command is then to come to a good end and to make anew only what is missing."""
    before = kept(disks.seen(folder))
    disks.give_room(disk)
    resumed = disks.run(folder)
    assert resumed.status == 0, resumed.log
    assert resumed.passes < whole.passes + (not before)
    assert before.items() <= kept(disks.seen(folder)).items()
    whole.check(disks.seen(folder))


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
def test_a_disk_that_fills_up_stops_it_with_one_line_and_with_room_it_resumes(
    disks: Disks, whole: Whole, share: float
) -> None:
    disk = disks.disk(f"share-{share}", room(whole, share=share))
    folder = disk / "capture"
    assert stop(disks, folder).split("/")[0] in ("tokens", "layer-1", "s", "progress")
    before = kept(disks.seen(folder))
    assert before or share == 0.1
    # Patience alone does not help, and does no harm.
    stop(disks, folder)
    assert before.items() <= kept(disks.seen(folder)).items()
    resume(disks, disk, folder, whole)


def test_one_that_is_full_from_the_start_stops_it_at_once(disks: Disks, whole: Whole) -> None:
    disk = disks.disk("full", f"size={PAGE}")
    filler = disks.seen(disk) / "filler"
    filler.write_bytes(bytes(PAGE))
    assert stop(disks, disk / "capture") == "heads.json"
    filler.unlink()
    resume(disks, disk, disk / "capture", whole)


def test_a_line_that_the_log_has_no_room_for_is_printed(disks: Disks) -> None:
    disk = disks.disk("log", f"size={PAGE}")
    (disks.seen(disk) / "filler").write_bytes(bytes(PAGE))
    ran = disks.run(disk / "capture", log=disk / "logs/capture.log")
    assert disks.seen(disk / "logs/capture.log").read_text() == ""
    assert names_a_file_of(disk / "capture", ran) == "heads.json"


def test_notes_without_room_are_not_believed(disks: Disks, whole: Whole) -> None:
    disk = disks.disk("notes/progress", f"size={5 * PAGE}")
    assert stop(disks, disk.parent) == "progress/00005.json"
    assert len(kept(disks.seen(disk.parent))) == 5 * len(HEADS)
    resume(disks, disk, disk.parent, whole)


def test_a_manifest_that_lacks_a_page_is_none(disks: Disks, whole: Whole) -> None:
    disk = disks.disk("manifest", room(whole, pages_less=2))
    folder = disk / "capture"
    assert stop(disks, folder) == shards.MANIFEST
    assert not (disks.seen(folder) / shards.MANIFEST).exists()
    resume(disks, disk, folder, whole)


def test_a_last_file_without_room_stops_it_too(disks: Disks, whole: Whole) -> None:
    disk = disks.disk("last", room(whole, pages_less=1))
    assert stop(disks, disk / "capture") == "run.json"
    resume(disks, disk, disk / "capture", whole)


def test_to_the_byte_enough_is_enough(disks: Disks, whole: Whole) -> None:
    disk = disks.disk("enough", room(whole))
    assert disks.run(disk / "capture").status == 0
    whole.check(disks.seen(disk / "capture"))


def test_a_disk_that_may_hold_no_more_files_is_full(disks: Disks, whole: Whole) -> None:
    disk = disks.disk("files", "size=64m", "nr_inodes=50")
    stop(disks, disk / "capture")
    assert kept(disks.seen(disk / "capture"))
    resume(disks, disk, disk / "capture", whole)
