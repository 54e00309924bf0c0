"""The demo world's texts on disk: the two tasks, the quiz, and what its models are trained and tuned on.

The prose shares no text with the tasks: other docstrings, and requests with other meanings. So what a model has seen is
never what its features are tested on. What the tuned model practises on are other questions than those of the quiz.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tessera.demo import docstrings, quiz, requests
from tessera.files import replacing


def write(
    *,
    docstrings_table: Path,
    requests_table: Path,
    prose_table: Path,
    quiz_table: Path,
    tuning_table: Path,
    libraries: list[str],
    per_library: int,
    meanings: int,
    marked: float,
    questions: int,
    seed: int,
) -> None:
    """Write the tables."""
    task, prose = docstrings.collect(libraries, per_library, seed)
    asked = requests.generate(meanings, seed, marked=marked)
    others = requests.generate(meanings, seed + 1, exclude={row["meaning"] for row in asked}, marked=marked)
    _write(docstrings_table, task)
    _write(requests_table, asked)
    told = [row["text"] for row in others]
    _write(prose_table, [{"text": text} for text in [*prose, *told]])
    asked_of_models = quiz.generate(questions, seed)
    _write(quiz_table, asked_of_models)
    _write(tuning_table, [{"text": text} for text in quiz.lessons(asked_of_models, told, seed)])


def read_prose(path: Path | str) -> list[str]:
    with pq.ParquetFile(path) as file:
        return file.read(["text"]).column("text").to_pylist()


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")
