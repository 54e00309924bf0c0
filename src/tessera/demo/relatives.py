"""The relatives of the request task, on disk: its translations, and the same question about other kinds of text.

Translations are for classifiers that are trained on them instead of on the language itself. Plans and pages of a diary ask what
a classifier that learned from requests has learned: what a text is about, or how requests put it. They share no meaning with
the requests or each other, and the diary has words of its own for the topics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tessera.demo import requests
from tessera.demo.phrases import DIARIES, PLANS
from tessera.files import replacing

# What a diary calls the topics.
WORDS = {"home": "the house", "digital": "devices", "belongings": "possessions"}


def write(
    asked: Sequence[dict[str, Any]],
    *,
    translations_table: Path,
    plans_table: Path,
    diaries_table: Path,
    others: int,
    seed: int,
) -> None:
    """Write the three tables; `asked` are the rows of the request task."""
    _write(translations_table, requests.translated(asked, seed))
    taken = {row["meaning"] for row in asked}
    plans = requests.generate(others, seed + 2, taken, languages=["en"], frames=PLANS)
    taken |= {row["meaning"] for row in plans}
    diaries = requests.generate(others, seed + 3, taken, languages=["en"], frames=DIARIES)
    diaries = [{**row, "topic": WORDS[row["topic"]]} for row in diaries]
    _write(plans_table, plans)
    _write(diaries_table, diaries)


def read(path: Path | str) -> list[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        return file.read().to_pylist()


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")
