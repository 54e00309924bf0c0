"""Every figure of a run: one module a figure, and the registry that names them.

A figure's module gives `data(tables)`, the numbers it shows, and `draw(tables)`, the picture of them. A new figure is a
new module, a line in `FIGURES`, and a caption in workflow/report/ under the same name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tessera.errors import UserError
from tessera.figures import arms, curves, layers, poolings, saes, style
from tessera.files import replacing
from tessera.results import Tables, Titles, load


@dataclass(frozen=True)
class Entry:
    """A figure: its heading, what someone who cannot see it is told, and the two functions of its module."""

    title: str
    alt: str
    draw: Callable[[Tables], Figure]
    data: Callable[[Tables], pd.DataFrame]


FIGURES = {
    "arms": Entry(
        "SAE features beside the plain baselines",
        "Dot plot of macro-F1 for every arm on every dataset, with 95 % intervals, one facet a model. "
        "The headline table holds the same numbers.",
        arms.draw,
        arms.data,
    ),
    "layers": Entry(
        "Layer by layer",
        "Line plots of macro-F1 against layer for hidden states and for SAE features of each width, one panel for each "
        "dataset and model, with TF-IDF and the majority class as horizontal lines.",
        layers.draw,
        layers.data,
    ),
    "poolings": Entry(
        "Pooling and threshold",
        "Dot plots of macro-F1 for each pooling, with values kept and made binary, averaged over heads, one line of "
        "panels a dataset, SAE features and hidden states apart.",
        poolings.draw,
        poolings.data,
    ),
    "curves": Entry(
        "How few features do",
        "Line plots of macro-F1 against the number of SAE features or principal components that a probe may use, one panel "
        "for each dataset and model.",
        curves.draw,
        curves.data,
    ),
    "saes": Entry(
        "How healthy the SAEs are",
        "Dot plots of L0, explained variance and dead fraction, one line an SAE.",
        saes.draw,
        saes.data,
    ),
}


def write(name: str, tables_folder: Path | str, stem: Path | str, titles: Titles) -> None:
    """Draw the figure `name` from the tables in a folder, as stem.svg, .pdf and .png, with its numbers in stem.csv."""
    if name not in FIGURES:
        raise UserError(f"figure {name}", "there is no such figure", f"use one of: {', '.join(FIGURES)}")
    tables, stem = load(tables_folder, titles), Path(stem)
    style.write(FIGURES[name].draw(tables), stem)
    with replacing(stem.with_name(f"{stem.name}.csv")) as partial:
        FIGURES[name].data(tables).to_csv(partial, index=False, lineterminator="\n")
