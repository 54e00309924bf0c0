"""Where features are active: how often by label, part and dataset, and in which examples the most.

An example is shown with the activation at every token of a window around the strongest one, or of an image on the grid of
its patches.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tessera.explorer import activity
from tessera.explorer.images import grid
from tessera.explorer.pieces import Pieces
from tessera.explorer.task import Labelled

Array = npt.NDArray[Any]

# Tokens of a text that are shown.
WINDOW = 48


def rates(active: Array, labelled: Labelled) -> tuple[Array, Array]:
    """Features x labels and features x parts: the share of examples in which a feature is active."""
    by_label = [active[labelled.codes == code].mean(axis=0) for code in range(len(labelled.labels))]
    by_subset = [active[labelled.table.subsets == name].mean(axis=0) for name in labelled.subsets]
    nothing = np.zeros((active.shape[1], 0))
    return np.stack(by_label, axis=1), np.stack(by_subset, axis=1) if by_subset else nothing


def strongest(pooled: Array, largest: Array, groups: Array, most: int) -> list[int]:
    """The rows with the largest pooled values of one feature, of each group one; equal ones by the largest token.

    Copies of an example and its translations would otherwise fill the list with one example.
    """
    order = np.lexsort((-largest, -pooled))
    order = order[largest[order] > 0]
    _, firsts = np.unique(groups[order], return_index=True)
    return [int(row) for row in order[np.sort(firsts)[:most]]]


class Shown:
    """Examples of features, ready to be drawn."""

    def __init__(self, labelled: Labelled, capture: Path, head: str, model: Path, *, last: bool) -> None:
        self.labelled, self.capture, self.head, self.model = labelled, capture, head, model
        # Around which token a text is shown: the last, if the probe reads no other.
        self.last = last

    def examples(self, rows: Mapping[int, list[int]], pooled: Mapping[int, Array]) -> dict[int, list[dict[str, Any]]]:
        """Feature -> its examples, for the rows of each feature; `pooled` holds each feature's pooled values."""
        wanted: dict[int, list[int]] = {}
        for feature, of_feature in rows.items():
            for row in of_feature:
                wanted.setdefault(row, []).append(feature)
        values = activity.at_every_token(self.capture, self.head, wanted)
        text = self.labelled.table.texts is not None
        pieces = self._pieces(wanted) if text else {}
        return {
            feature: [
                {
                    **self.labelled.where(row),
                    "value": pooled[feature][row],
                    **(self._text(values[row, feature], pieces[row]) if text else _image(values[row, feature])),
                }
                for row in of_feature
            ]
            for feature, of_feature in rows.items()
        }

    def _pieces(self, rows: Collection[int]) -> dict[int, list[str]]:
        pieces = Pieces(self.model)
        return {row: pieces.of(ids.tolist()) for row, ids in activity.token_ids(self.capture, rows).items()}

    def _text(self, values: Array, pieces: list[str]) -> dict[str, Any]:
        around = len(values) - 1 if self.last else int(values.argmax())
        start = max(0, min(around - WINDOW // 2, len(values) - WINDOW))
        window = slice(start, start + WINDOW)
        return {
            "tokens": pieces[window],
            "values": values[window].tolist(),
            "start": start,
            "cut": len(values) > WINDOW,
        }


def _image(values: Array) -> dict[str, Any]:
    return {"grid": grid(len(values)), "values": values.tolist()}
