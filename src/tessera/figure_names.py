"""What the figures of transfer are called, and which caption each has.

There is a figure or two for each transfer that a config names, so their names follow from the config. The workflow asks
while it plans, when neither tables nor a drawing library are at hand.
"""

from collections.abc import Mapping
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
