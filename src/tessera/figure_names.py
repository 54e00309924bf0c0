"""What the figures of transfer and of the study are called, and which caption each has.

There is a figure or two for each transfer that a config names, and one for each dataset and SAE width, so their names
follow from the config. The workflow asks while it plans, when neither tables nor a drawing library are at hand.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tessera.errors import UserError

# The pictures that a kind of transfer has: the first bears the transfer's name alone, another adds its own.
PICTURES = {
    "language": ("language", "training"),
    "task": ("task",),
    "model": ("model",),
    "modality": ("modality",),
    "dictionary": ("dictionary",),
}


def transfer_figures(transfers: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Figure -> the transfer it shows and the picture it is, in the config's order; of a transfer only its `kind` counts."""
    found: dict[str, tuple[str, str]] = {}
    for transfer, entry in transfers.items():
        for place, picture in enumerate(PICTURES[entry["kind"]]):
            name = f"transfer-{transfer}" + (f"-{picture}" if place else "")
            if name in found:
                wrong = f"the figure {name} of this transfer and one of transfers.{found[name][0]} have the same name"
                raise UserError(f"transfers.{transfer}", wrong, "give one of them another id")
            found[name] = transfer, picture
    return found


def caption_name(figure: str, transfers: Mapping[str, Mapping[str, Any]]) -> str:
    """The name, without its ending, of a figure's caption in workflow/report/: one for each picture of transfer."""
    of_transfers = transfer_figures(transfers)
    return f"transfer-{of_transfers[figure][1]}" if figure in of_transfers else figure


@dataclass(frozen=True)
class PaperFigure:
    """A figure that stands for one of the study's: which, and of what; `picture` is the name of its caption, too."""

    picture: str
    dataset: str | None = None
    width: int | None = None

    @property
    def name(self) -> str:
        parts = [self.picture, self.dataset, None if self.width is None else str(self.width)]
        return "-".join(part for part in parts if part is not None)

    @property
    def pattern(self) -> str:
        """The name with the kind of its parts in their place, as an index of figures has it."""
        parts = [self.picture, self.dataset and "{dataset}", self.width and "{width}"]
        return "-".join(part for part in parts if part)


POOLINGS, IMAGES = "paper-poolings", "paper-images"
SINGLE = ("paper-scale", "paper-behaviours", "paper-baselines", "paper-binarisation", "paper-top-n")


def paper_figures(widths: Mapping[str, Iterable[int]], images: Iterable[str]) -> dict[str, PaperFigure]:
    """The figures on the axes of the study's, by name: `widths` are those of the SAEs on each probed dataset."""
    found = [PaperFigure(POOLINGS, dataset, width) for dataset, read in widths.items() for width in read]
    found += [PaperFigure(picture) for picture in SINGLE]
    found += [PaperFigure(IMAGES, dataset) for dataset in images]
    return {figure.name: figure for figure in found}


def patterns(
    plain: Iterable[str], transfers: Mapping[str, Mapping[str, Any]], paper: Mapping[str, PaperFigure]
) -> dict[str, str]:
    """Figure -> its pattern, of all figures of a run: the name, with ids replaced by what they are ids of.

    A transfer's id is replaced by its kind: `transfer-{language}-training` is any of that picture.
    """
    found = {name: name for name in plain}
    for name, (transfer, _) in transfer_figures(transfers).items():
        found[name] = f"transfer-{{{transfers[transfer]['kind']}}}" + name.removeprefix(f"transfer-{transfer}")
    return found | {name: figure.pattern for name, figure in paper.items()}
