"""Which passes of a model over a dataset are owed.

A capture is one forward pass that serves several heads, so captures are planned and not configured: heads that a capture
on disk already holds stay where they are, and all the others form one new capture, named by a hash of its heads.

A capture claims its heads in heads.json before its first pass and keeps the claim while its manifest is being redone.
Planning reads the claims, not the manifests, so that it comes to the same plan in every process of a run, whatever is
momentarily absent. Heads that are no longer wanted stay in their capture: dropping a head reruns nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera.files import read_json, sha256_json, write_json

CLAIM = "heads.json"


@dataclass(frozen=True, order=True)
class Head:
    """A place to read: a site of a layer, or the vision tower, as it is (`sae` is None) or through an SAE.

    Of hidden states three poolings are kept, or with `every_token` the states themselves. A control has in each token as
    many features as the SAE `matched`.
    """

    id: str
    layer: int
    sae: str | None = None
    site: str = "resid_post"
    every_token: bool = False
    matched: str | None = None

    @property
    def saes(self) -> list[str]:
        """The SAEs it takes to read."""
        return [sae for sae in (self.sae, self.matched) if sae]

    @property
    def place(self) -> tuple[int, str]:
        return self.layer, self.site


def hidden_head(layer: int) -> Head:
    return Head(f"layer-{layer}", layer)


# The site of what a vision tower says of an image, before the language tower reads it.
VISION = "vision_tower"


def vision_head() -> Head:
    """The vision tower's own features of an image; texts have none."""
    return Head("vision", 0, site=VISION)


# How the states of every token become one vector: by a query that a probe learns.
ATTENTION = "attention"


def token_head(layer: int) -> Head:
    return Head(f"layer-{layer}-tokens", layer, every_token=True)


def capture_id(heads: Iterable[Head]) -> str:
    return sha256_json([asdict(head) for head in sorted(heads)])[:10]


def claim(folder: Path, heads: Iterable[Head]) -> None:
    """Record that the capture in `folder` holds `heads`, before it does."""
    write_json(folder / CLAIM, [asdict(head) for head in sorted(heads)])


def claims(folder: Path) -> dict[str, tuple[Head, ...]]:
    """Capture id -> heads, for the captures of one model and dataset that have begun."""
    files = sorted(folder.glob(f"*/{CLAIM}"))
    return {file.parent.name: tuple(Head(**head) for head in read_json(file)) for file in files}


def plan(folder: Path, wanted: Iterable[Head], available: Callable[[str], bool]) -> dict[str, tuple[Head, ...]]:
    """Capture id -> its heads, for every capture that serves a wanted head.

    `available(sae)` says whether an SAE is configured or on disk. A claim on an SAE that is neither cannot be kept, and
    its other heads are owed again.
    """
    missing = set(wanted)
    needed: dict[str, tuple[Head, ...]] = {}
    for name, heads in claims(folder).items():
        kept = missing.intersection(heads)
        if kept and all(available(sae) for head in heads for sae in head.saes):
            needed[name] = heads
            missing -= kept
    if missing:
        needed[capture_id(missing)] = tuple(sorted(missing))
    return needed
