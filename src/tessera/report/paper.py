"""The page of the study's figures: each of them in words, what stands for it in this run, and what differs; and the procedure.

Like the report it is one file that asks for nothing. A study has a figure for every dataset and width, and
a hundred drawings of lines and letters would make a page that no browser likes to open. So where many figures stand for
one of the authors', they are folded away, and shown as pictures in few colours, a tenth the size; the drawings lie beside the page.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tessera.errors import UserError
from tessera.figure_names import PaperFigure, caption_name, patterns
from tessera.figures import entries
from tessera.figures.paper import PICTURES, title
from tessera.files import replacing
from tessera.report import scoreboard as board_sections
from tessera.report import sections, shell
from tessera.report.drawn import caption, embedded, vector
from tessera.transfer_results import Titles

INDEX = ("path_pattern", "what", "axes_groups", "code", "ours", "differs")
FACTS = ("item", "value", "source", "status", "here")
# More figures than this for one of the authors' are folded away.
FEW = 8
COLORS = 32


def build(
    output: Path | str,
    *,
    tables: Path | str,
    figures: Path | str,
    index: Path | str,
    facts: Path | str,
    captions: Path | str,
    plain: Sequence[str],
    paper: Sequence[PaperFigure],
    titles: Titles,
    sources: Mapping[str, Mapping[str, Mapping[str, Any]]],
    protocols: Sequence[str],
) -> None:
    """Write the page from the folders of tables, figures and captions, the index of the authors' figures, and the facts of
    their procedure.

    `plain` names the figures of every run that this one has, `paper` those on the study's axes.
    """
    by_name = {figure.name: figure for figure in paper}
    known = patterns(plain, titles.get("transfers", {}), by_name)
    words = _words(by_name, Path(captions), titles)
    rows: list[dict[str, Any]] = []
    seen: dict[str, dict[str, str]] = {}
    for row in _read(Path(index), INDEX):
        names = [name for pattern in row["ours"].split() for name in known if known[name] == pattern]
        new = [name for name in names if name not in seen]
        many = len(new) > FEW
        shown = [_once(words, name, new) | _image(Path(figures), name, small=many) for name in new]
        rows.append({**row, "figures": shown, "many": many, "again": [seen[name] for name in names if name in seen]})
        seen |= {name: words[name] for name in new}
    values = {
        "rows": rows,
        "facts": _read(Path(facts), FACTS),
        **board_sections.section(board_sections.load(tables)),
        "demo": sections.uses_demo({"source": source} for of in sources.values() for source in of.values()),
        "protocols": list(protocols),
    }
    with replacing(output) as partial:
        page = shell.environment().get_template("paper.html.j2").render(**values)
        partial.write_text(page, encoding="utf-8")


def _once(words: Mapping[str, dict[str, str]], name: str, names: Sequence[str]) -> dict[str, str]:
    """The words of a figure; of those in a row that share a caption, the first has it."""
    first = next(other for other in names if words[other]["caption"] == words[name]["caption"])
    return words[name] if first == name else words[name] | {"caption": "What it shows is told under the first of them."}


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    missing = [name for name in columns if rows and name not in rows[0]]
    if missing or not rows:
        wrong = f"the columns {', '.join(missing)} are missing" if missing else "it has no rows"
        raise UserError(str(path), wrong, "restore resources/reference from the repository")
    return rows


def _words(paper: Mapping[str, PaperFigure], captions: Path, titles: Titles) -> dict[str, dict[str, str]]:
    """Figure -> its heading, what someone who cannot see it is told, and its caption."""
    plain = {
        name: (entry.title, entry.alt, caption_name(name, titles.get("transfers", {})))
        for name, entry in entries(titles).items()
    }
    drawn = {
        name: (title(figure, titles), PICTURES[figure.picture].alt, figure.picture) for name, figure in paper.items()
    }
    texts = {file: caption(captions / f"{file}.rst") for file in {file for _, _, file in (plain | drawn).values()}}
    return {
        name: {"name": name, "title": heading, "alt": alt, "caption": texts[file]}
        for name, (heading, alt, file) in (plain | drawn).items()
    }


def _image(folder: Path, name: str, *, small: bool) -> dict[str, Any]:
    """The picture inside the page, and the files beside it."""
    files = [f"figures/{name}.{kind}" for kind in ("svg", "pdf", "png", "csv")]
    if small:
        return {"image": embedded(_few_colors(folder / f"{name}.png"), "image/webp"), "files": files}
    return {**vector(folder / f"{name}.svg"), "files": files}


def _few_colors(path: Path) -> bytes:
    """A picture in few colours, of which a figure has no more, with sharp letters."""
    with Image.open(path) as picture:
        drawn = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    drawn.convert("RGB").save(packed, "webp", lossless=True, method=6)
    return packed.getvalue()
