"""The figures of a run for a page: each with its words, and with its picture and its numbers inside."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from tessera.figure_names import caption_name, transfer_figures
from tessera.figures import Entry
from tessera.transfer_results import Titles

Figure = dict[str, str]


def drawn(entries: Mapping[str, Entry], folder: Path, captions: Path, titles: Titles) -> list[Figure]:
    """The figures whose SVG is in `folder`, in the order of `entries`; `transfer` is the one that a figure shows."""
    transfers = titles.get("transfers", {})
    shows = {name: transfer for name, (transfer, _) in transfer_figures(transfers).items()}
    return [
        {
            "name": name,
            "title": entry.title,
            "alt": entry.alt,
            "caption": caption(captions / f"{caption_name(name, transfers)}.rst"),
            **vector(folder / f"{name}.svg"),
            "data": embedded((folder / f"{name}.csv").read_bytes(), "text/csv"),
            "transfer": shows.get(name, ""),
        }
        for name, entry in entries.items()
        if (folder / f"{name}.svg").is_file()
    ]


def vector(path: Path) -> Figure:
    """An SVG inside a page, and its size, so that a page has its place before the browser comes to draw it."""
    content = path.read_bytes()
    size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', content)
    sides = zip(("width", "height"), size.groups(), strict=True) if size else ()
    return {"image": embedded(content, "image/svg+xml")} | {side: f"{float(points):.0f}" for side, points in sides}


def embedded(content: bytes, kind: str) -> str:
    """A file as the address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def caption(path: Path) -> str:
    """A caption of the workflow's own report, which is plain sentences so that both reports can show it."""
    return " ".join(path.read_text(encoding="utf-8").split())
