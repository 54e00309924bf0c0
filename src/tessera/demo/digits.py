"""Pictures of handwritten digits, and the names of digits in words.

The pictures are the 1,797 that scikit-learn carries, each 8 x 8 greys, enlarged to what the demo's vision tower sees. Some
of them, drawn by seed and as many of each digit as can be, are the task. The vision tower is trained on the others,
so what is probed has never been seen. The names are the same ten labels without a picture: what a probe learns from
them tells whether pictures and words are read in one way.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from tessera.errors import UserError
from tessera.files import replacing

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PIXELS = 16  # width and height of a picture
LIGHTEST = 16  # the largest grey of the source

TEMPLATES = (
    "a picture of a {name}",
    "the number {name}",
    "the digit {name}",
    "this is a {name}",
    "someone wrote the number {name}",
    "a handwritten {name}",
    "the answer is {name}",
    "it says {name}",
    "press {name} to continue",
    "the code ends in {name}",
    "count to {name}",
    "{name}",
)


def images(number: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows {id, image, label} of a task of so many pictures, and of all the others. An image is a PNG."""
    greys, digits = load_digits(return_X_y=True)
    if not 0 < number < len(digits):
        raise UserError("demo.digits", f"{number} pictures are asked for, and there are {len(digits)}", "lower it")
    drawn = set(_drawn(digits, number, seed))
    rows = [
        {"id": f"digit-{place:04d}", "image": _png(grey), "label": NAMES[digit]}
        for place, (grey, digit) in enumerate(zip(greys, digits, strict=True))
    ]
    return [row for place, row in enumerate(rows) if place in drawn], [
        row for place, row in enumerate(rows) if place not in drawn
    ]


def names() -> list[dict[str, Any]]:
    """Rows {id, text, label, group}: each name in every phrase; a group is a phrase."""
    return [
        {"id": f"name-{name}-{place:02d}", "text": phrase.format(name=name), "label": name, "group": phrase}
        for place, phrase in enumerate(TEMPLATES)
        for name in NAMES
    ]


def write(*, task_table: Path, training_table: Path, names_table: Path, number: int, seed: int) -> None:
    """Write the three tables."""
    task, training = images(number, seed)
    for path, rows in ((task_table, task), (training_table, training), (names_table, names())):
        with replacing(path) as partial:
            pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")


def read(path: Path | str) -> list[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        return file.read().to_pylist()


def _drawn(digits: np.ndarray, number: int, seed: int) -> list[int]:
    """Places of so many pictures: the same number of each digit, and of some digits one more."""
    rng = np.random.default_rng(seed)
    shares = np.full(len(NAMES), number // len(NAMES)) + (rng.permutation(len(NAMES)) < number % len(NAMES))
    found: list[int] = []
    for digit, share in enumerate(shares):
        places = np.flatnonzero(digits == digit)
        if share > len(places):
            wrong = f"{share} pictures of a {NAMES[digit]} are needed, and there are {len(places)}"
            raise UserError("demo.digits", wrong, "lower it")
        found += rng.permutation(places)[:share].tolist()
    return found


def _png(grey: np.ndarray) -> bytes:
    shades = np.round(grey.reshape(8, 8) * (255 / LIGHTEST)).astype(np.uint8)
    enlarged = np.kron(shades, np.ones((PIXELS // 8, PIXELS // 8), dtype=np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(enlarged).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
