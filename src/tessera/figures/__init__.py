"""Every figure of a run: one module a figure, and the registry that names them.

A figure's module gives `data(tables)`, the numbers it shows, and `draw(tables)`, the picture of them. A new figure is a
new module, a line in `FIGURES`, and a caption in workflow/report/ under the same name. The figures of transfer are made for
each transfer of the config: their modules are given its id, too, and stand in `PICTURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tessera import results, transfer_results
from tessera.errors import UserError
from tessera.figure_names import transfer_figures
from tessera.figures import (
    arms,
    curves,
    layers,
    poolings,
    saes,
    style,
    transfer_dictionary,
    transfer_language,
    transfer_modality,
    transfer_model,
    transfer_task,
    transfer_training,
)
from tessera.files import replacing
from tessera.quoting import in_a_cell
from tessera.transfer_results import Titles


@dataclass(frozen=True)
class Entry:
    """A figure: its heading, what someone who cannot see it is told, and the two functions of its module.

    `load` reads the tables that these take, from a folder.
    """

    title: str
    alt: str
    draw: Callable[[Any], Figure]
    data: Callable[[Any], pd.DataFrame]
    load: Callable[[Path | str, Titles], Any] = results.load


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


# The pictures that a transfer may have: what is added to its title, the alternative text, and the module.
PICTURES: dict[str, tuple[str, str, Any]] = {
    "language": (
        "from language to language",
        "Heat maps of macro-F1, a line for each language of training and a column for each language of testing, one panel "
        "a layer for SAE features and hidden states, one for TF-IDF.",
        transfer_language,
    ),
    "training": (
        "native, transferred and translated training",
        "Grouped bars of macro-F1 against the share of the training examples, a bar for each way of training, one panel for "
        "each selection of SAE features and for hidden states.",
        transfer_training,
    ),
    "task": (
        "from task to task",
        "Heat maps of macro-F1, a line for each dataset of training and a column for each dataset of testing, with the share "
        "of the gap that is closed, one panel an arm.",
        transfer_task,
    ),
    "model": (
        "from model to model",
        "Line plots of macro-F1 against layer, a panel for each behaviour and a line for each reading model and width, with "
        "TF-IDF and the answering model's confidence as horizontal lines.",
        transfer_model,
    ),
    "modality": (
        "from text to images",
        "Line plots of macro-F1 against layer, for probes trained on images and for those trained on names, with the vision "
        "tower and raw pixels as horizontal lines.",
        transfer_modality,
    ),
    "dictionary": (
        "SAEs on a sibling of their model",
        "Dot plots of L0, explained variance, dead fraction, agreement and macro-F1, one line an SAE, filled on its own model "
        "and open on the sibling.",
        transfer_dictionary,
    ),
}


def of_transfers(titles: Titles) -> dict[str, Entry]:
    """The figures of the transfers that `titles` names, in the config's order."""
    transfers = titles.get("transfers", {})
    found = {}
    for name, (transfer, picture) in transfer_figures(transfers).items():
        what, alt, module = PICTURES[picture]
        title = f"{transfers[transfer].get('title') or transfer}: {what}"
        draw, data = partial(module.draw, transfer=transfer), partial(module.data, transfer=transfer)
        found[name] = Entry(title, alt, draw, data, transfer_results.load)
    return found


def entries(titles: Titles) -> dict[str, Entry]:
    """Every figure that a run may have, in the order of the report."""
    return FIGURES | of_transfers(titles)


def write(name: str, tables_folder: Path | str, stem: Path | str, titles: Titles) -> None:
    """Draw the figure `name` from the tables in a folder, as stem.svg, .pdf and .png, with its numbers in stem.csv."""
    known = entries(titles)
    if name not in known:
        raise UserError(f"figure {name}", "there is no such figure", f"use one of: {', '.join(known)}")
    entry, stem = known[name], Path(stem)
    tables = entry.load(tables_folder, titles)
    style.write(entry.draw(tables), stem)
    with replacing(stem.with_name(f"{stem.name}.csv")) as partial_file:
        shown = entry.data(tables).map(lambda value: in_a_cell(value) if isinstance(value, str) else value)
        shown.to_csv(partial_file, index=False, lineterminator="\n")
