"""How to cite: what CITATION.cff says, as sentences and for a reference manager."""

from pathlib import Path
from typing import Any

import yaml


def read(path: Path | str) -> dict[str, Any]:
    """The two works to cite, each with its `authors`, `title` and `rest`; and both as `bibtex`."""
    record = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    (study,) = record["references"]
    software = {
        "authors": _listed(record["authors"]),
        "title": record["title"],
        "rest": f"Version {record['version']}.",
    }
    identifier = next(entry["value"] for entry in study["identifiers"]).replace(":", " ", 1)
    paper = {
        "authors": _listed(study["authors"]),
        "title": study["title"],
        "rest": f"{study['conference']['name']}. {identifier}.",
    }
    return {"works": [paper, software], "bibtex": _bibtex(record, study, identifier)}


def _names(authors: list[dict[str, str]]) -> list[str]:
    return [
        author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"
        for author in authors
    ]


def _listed(authors: list[dict[str, str]]) -> str:
    *others, last = _names(authors)
    return f"{', '.join(others)} and {last}" if others else last


def _bibtex(record: dict[str, Any], study: dict[str, Any], identifier: str) -> str:
    entries = [
        ("inproceedings", study["authors"][0]["family-names"].lower() + str(study["year"]), {
            "title": study["title"], "author": " and ".join(_names(study["authors"])),
            "booktitle": study["conference"]["name"], "year": study["year"], "note": identifier,
        }),
        ("software", "tessera", {
            "title": record["title"], "author": " and ".join(f"{{{name}}}" for name in _names(record["authors"])),
            "version": record["version"],
        }),
    ]  # fmt: skip
    return "\n\n".join(
        f"@{kind}{{{key},\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items()) + "}"
        for kind, key, fields in entries
    )
