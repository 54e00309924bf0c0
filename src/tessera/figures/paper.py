"""The figures that stand for the study's own: the registry of their pictures, and how a run's are drawn.

They are made for the target `paper` alone and read more than the other figures do: what the config's ids are on the Hub, and
the published numbers. So they have a registry of their own, and one job draws them all.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tessera.figure_names import PaperFigure
from tessera.figures import (
    paper_baselines,
    paper_behaviours,
    paper_differences,
    paper_images,
    paper_poolings,
    paper_scale,
    style,
)
from tessera.files import replacing
from tessera.paper_results import Paper


@dataclass(frozen=True)
class Picture:
    """A kind of figure: its heading, what someone who cannot see it is told, and the functions that make it.

    Both functions take the run and what `arguments` of the figure says.
    """

    title: str
    alt: str
    draw: Callable[..., Figure]
    data: Callable[..., pd.DataFrame]
    arguments: Callable[[PaperFigure], tuple[Any, ...]] = lambda _: ()


PICTURES = {
    "paper-poolings": Picture(
        "Pooling and binarising",
        "Grouped bars of macro-F1 by pooling and by threshold, a bar a model, columns for early, middle and late layers, "
        "for SAE features alone and averaged with hidden states.",
        paper_poolings.draw,
        paper_poolings.data,
        lambda figure: (figure.dataset, figure.width),
    ),
    "paper-scale": Picture(
        "Scale: models, widths and layers",
        "Line plots of mean macro-F1 of SAE features against early, middle and late layers, a panel for each text dataset, "
        "a colour for each model and a line style for each width.",
        paper_scale.draw,
        paper_scale.data,
    ),
    "paper-behaviours": Picture(
        "Behaviour prediction",
        "Line plots of mean macro-F1 of SAE features against early, middle and late layers, a panel for each behaviour, a "
        "colour for each reading model and a line style for each width.",
        paper_behaviours.draw,
        paper_behaviours.data,
    ),
    "paper-images": Picture(
        "Images",
        "Line plots of macro-F1 of SAE features against early, middle and late layers, a line for each pooling and threshold, "
        "with the vision tower and the best hidden state as horizontal lines.",
        paper_images.draw,
        paper_images.data,
        lambda figure: (figure.dataset,),
    ),
    "paper-baselines": Picture(
        "The best of each kind of input",
        "Grouped bars of macro-F1 on every dataset for the best SAE features, the best hidden states, TF-IDF and the majority "
        "class, with the published best as markers.",
        paper_baselines.draw,
        paper_baselines.data,
    ),
    "paper-binarisation": Picture(
        "What binarising does",
        "Dot plots of the paired difference in macro-F1 between binary and raw features, a line a dataset, a point a head, a "
        "panel a pooling, with means and intervals.",
        paper_differences.draw,
        paper_differences.data,
        lambda _: ("binarisation",),
    ),
    "paper-top-n": Picture(
        "What top-N does",
        "Dot plots of the paired difference in macro-F1 between top-N and the plain sum, a line a dataset, a point a head, a "
        "panel for each N, with means and intervals.",
        paper_differences.draw,
        paper_differences.data,
        lambda _: ("top-n",),
    ),
}


def draw(figure: PaperFigure, paper: Paper) -> Figure:
    picture = PICTURES[figure.picture]
    return picture.draw(paper, *picture.arguments(figure))


def data(figure: PaperFigure, paper: Paper) -> pd.DataFrame:
    """The numbers that a figure shows."""
    picture = PICTURES[figure.picture]
    return picture.data(paper, *picture.arguments(figure))


def title(figure: PaperFigure, titles: dict[str, dict[str, Any]]) -> str:
    """The heading of a figure, with what it is of."""
    parts = [PICTURES[figure.picture].title]
    if figure.dataset is not None:
        parts.append(str(titles.get("datasets", {}).get(figure.dataset) or figure.dataset))
    if figure.width is not None:
        parts.append(f"SAE width {figure.width:,}")
    return ", ".join(parts)


def write(figures: Iterable[PaperFigure], paper: Paper, folder: Path | str) -> None:
    """Draw the figures into a folder, each as .svg, .pdf and .png, with its numbers as .csv."""
    for figure in figures:
        stem = Path(folder) / figure.name
        style.write(draw(figure, paper), stem)
        with replacing(stem.with_name(f"{stem.name}.csv")) as partial:
            data(figure, paper).to_csv(partial, index=False, lineterminator="\n")
