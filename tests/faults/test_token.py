"""The token that the Hub is asked with is nowhere to be read: not after a run that ends well, nor after one that is refused."""

from pathlib import Path

from fetched import FETCHING, STAGES, online
from hub_served import SECRET, Hub
from worlds import World

REFUSED = "another-that-looks-like-no-token"


def telling(folder: Path, token: str) -> list[Path]:
    """The files below a folder that have the token in them, or in their name."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert found
    return [path for path in found if token in path.name or token.encode() in path.read_bytes()]


def test_after_a_whole_run_the_token_is_in_no_file_and_was_not_printed(fetched_world: World, study_hub: Hub) -> None:
    assert f"Bearer {SECRET}" in {request.token for request in study_hub.asked}
    for part in ("results/snakemake-report.html", "logs", ".snakemake/log", ".snakemake/metadata", "printed.txt"):
        assert (fetched_world.folder / part).exists()
    assert telling(fetched_world.folder, SECRET) == []


def test_after_a_refused_run_the_token_is_in_no_file_and_was_not_printed(
    fetched_world: World, study_hub: Hub, tmp_path: Path
) -> None:
    world = fetched_world.copy(tmp_path / "world")
    for script in FETCHING:
        STAGES[script].forget(world.folder / "results")
    # The SAEs wait for their model, so it is there.
    environment = online(study_hub, tmp_path / "cache")
    world.run(STAGES["model"].target, environment=environment)
    (world.folder / "results/models/mine/revision.json").rename(tmp_path / "revision.json")
    with study_hub.playing() as asked:
        targets = [STAGES[script].target for script in FETCHING]
        printed = world.run(*targets, check=False, environment=environment | {"HF_TOKEN": REFUSED})
    assert f"Bearer {REFUSED}" in {request.token for request in asked}
    for key, name in (("datasets.reviews.source.hub", "reviews"), ("models.mine.source", "mine")):
        assert f"{key}: 'owner/{name}' is gated, and this token may not read it. Mend: accept its terms on " in printed
    assert "Traceback" not in printed
    assert REFUSED not in printed
    (tmp_path / "revision.json").rename(world.folder / "results/models/mine/revision.json")
    printed = world.run(STAGES["sae"].target, check=False, environment=environment | {"HF_TOKEN": REFUSED})
    assert "saes.mine-l3.source: 'owner/saes' is gated, and this token may not read it. Mend: " in printed
    assert REFUSED not in printed
    assert telling(world.folder, REFUSED) == []
    assert telling(world.folder, SECRET) == []
