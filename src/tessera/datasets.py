"""From a config entry to a dataset: a table of labelled examples, and a record of what became of every row.

A benchmark is no better than its table. Two things go wrong there in silence, and this stage makes them loud. Rows that
cannot be used (no text, no label, a class that cannot be split) are left out, counted by reason, and named. Examples
that are the same to a reader (equal after Unicode NFKC, case folding and white space folding) share a group, together
with the examples that the user says belong together, transitively; no split may cut through a group. Everything else is
kept as it came: no character of a text or a label is changed.

The table is in the order of its source. The record carries the sha256 of the examples themselves, so that the same
examples have the same hash whatever file they came from.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tessera import drawing, examples, sources
from tessera.errors import UserError
from tessera.files import replacing, write_json
from tessera.groups import codes, grouped, hashed, reading, renumbered

# Why a row is left out. A row is counted under the first reason that holds.
REASONS = (
    "missing text",
    "empty text",
    sources.UNDECODABLE,
    sources.OVERSIZED,
    "missing label",
    "missing subset",
    "class with one member",
)
# The label of every example of a dataset that has none.
UNLABELLED = ""
NAMED = 20  # how many examples a record names for each finding

# Small enough for a row group of long texts or images to stay within the 2 GB that an Arrow column can hold.
ROWS_PER_GROUP = 2048

Integers = npt.NDArray[np.int64]

logger = logging.getLogger("tessera")


@dataclass(frozen=True)
class Rows:
    """The rows of a source, with what the stage decides by.

    `keys` holds what a text says to a reader (see `reading`) or an image shows, hashed; None where the text is missing
    and b"" where it is empty. The codes index `labels` and `subsets`; -1 is missing.
    """

    raw: sources.Raw
    ids: pa.Array
    keys: list[bytes | None]
    labels: list[str]
    label_codes: Integers
    subsets: list[str]
    subset_codes: Integers

    def named(self, rows: Iterable[Any]) -> list[str]:
        """The ids of the first few rows, for the record."""
        return self.ids.take(pa.array(list(islice(rows, NAMED)), pa.int64())).to_pylist()


def build(
    name: str,
    entry: dict[str, Any],
    table_path: Path | str,
    record_path: Path | str,
    *,
    seed: int,
    generated: Path | None = None,
) -> dict[str, Any]:
    """Write the table and the record of the dataset `name`, and return the record.

    `entry` is the dataset's config entry; `seed` matters only where that asks for `max_examples`; `generated` is the
    table that a demo source stands for. The record is written last.
    """
    rows = _rows(name, sources.read(name, entry, generated))
    reasons = _reasons(rows)
    exclusions = _exclusions(rows, reasons)
    kept = np.flatnonzero(reasons < 0)
    _check_classes(name, rows, kept, exclusions)
    duplicates = codes([rows.keys[row] for row in kept])
    groups = grouped([duplicates, _user_groups(rows.raw)[kept]])
    drawn = None
    if entry["max_examples"] is not None and len(kept) > entry["max_examples"]:
        drawn = {"max_examples": entry["max_examples"], "of": len(kept), "seed": seed}
        units = groups if entry["group"] is not None else np.arange(len(kept))
        chosen = _draw(name, rows, kept, units, total=entry["max_examples"], seed=seed)
        kept, duplicates, groups = kept[chosen], duplicates[chosen], renumbered(groups[chosen])
    if groups.max() == 0:
        key = f"datasets.{name}.{'text' if entry['group'] is None else 'group'}"
        raise UserError(key, "all examples belong to one group, which no split can separate", "check the column")

    record = {
        "source": entry["source"],
        "revision": rows.raw.revision,
        "source_sha256": rows.raw.sha256,
        "sha256": _write(rows, kept, groups, table_path),
        "modality": _modality(rows.raw),
        "n_rows": rows.raw.rows,
        "exclusions": exclusions,
        "drawn": drawn,
        "n_examples": len(kept),
        "n_groups": int(groups.max()) + 1,
        **_counts(rows, kept),
        **_repetitions(rows, kept, duplicates),
        "characters": _characters(rows.raw, kept),
    }
    write_json(record_path, record)
    left_out = _in_words(exclusions) or "nothing"
    logger.info("%s: %d examples in %d groups; left out: %s", name, len(kept), record["n_groups"], left_out)
    return record


def _modality(raw: sources.Raw) -> str:
    return "text" if raw.images is None else "image"


# --- the rows of a source ------------------------------------------------------------------------------------------


def _rows(name: str, raw: sources.Raw) -> Rows:
    labels, label_codes = [UNLABELLED], np.zeros(raw.rows, dtype=np.int64)
    if "label" in raw.columns:
        labels, label_codes = _named_codes(raw.columns["label"])
        _check_spelling(f"datasets.{name}.label", labels)
    subsets, subset_codes = ["all"], np.zeros(raw.rows, dtype=np.int64)
    if "subset" in raw.columns:
        subsets, subset_codes = _named_codes(raw.columns["subset"])
        _check_spelling(f"datasets.{name}.subset", subsets)
        if "all" in subsets and len(subsets) > 1:
            raise UserError(
                f"datasets.{name}.subset", "a subset is called 'all', which stands for every example", "rename it"
            )
    return Rows(raw, _ids(name, raw), _keys(raw), labels, label_codes, subsets, subset_codes)


def _ids(name: str, raw: sources.Raw) -> pa.Array:
    """The user's ids, which must be there and differ, or the row numbers, counted from 0."""
    if "id" not in raw.columns:
        return pa.array(map(str, range(raw.rows)), pa.large_string())
    ids = raw.columns["id"].combine_chunks()
    coded = ids.dictionary_encode()
    seen: dict[str, int] = {}
    # Rows are looked at one by one only to name the culprit.
    if ids.null_count or "" in coded.dictionary.to_pylist() or len(coded.dictionary) < len(ids):
        for row, given in enumerate(ids.to_pylist()):
            if not given:
                raise UserError(raw.place(row), "the id is missing", f"give one, or leave out datasets.{name}.id")
            if given in seen:
                where, first = raw.place(row), raw.place(seen[given])
                raise UserError(where, f"the id '{given}' is already that of {first}", "give every example its own id")
            seen[given] = row
    return ids


def _keys(raw: sources.Raw) -> list[bytes | None]:
    if raw.images is not None:
        return list(raw.images.digests)
    texts = (text for chunk in raw.columns["text"].chunks for text in chunk.to_pylist())
    return [None if text is None else hashed(reading(text)) for text in texts]


def _named_codes(column: pa.ChunkedArray) -> tuple[list[str], Integers]:
    """The distinct values of a column, sorted, and each row's place among them. Blank cells are missing: -1."""
    coded = column.combine_chunks().dictionary_encode()
    found = coded.dictionary.to_pylist()
    values = sorted(value for value in found if value.strip())
    place = {value: position for position, value in enumerate(values)}
    # The last entry is for null, which becomes index -1.
    places = np.array([place.get(value, -1) for value in found] + [-1], dtype=np.int64)
    return values, places[np.asarray(pc.fill_null(coded.indices, -1))]


def _check_spelling(key: str, values: list[str]) -> None:
    """Two classes that differ only in white space at their ends are one class with a slip of the pen."""
    stripped: dict[str, str] = {}
    for value in values:
        other = stripped.setdefault(value.strip(), value)
        if other != value:
            raise UserError(key, f"{other!r} and {value!r} differ only in white space", "write them alike")


def _user_groups(raw: sources.Raw) -> Integers:
    """The group each row has in the source; -1 for a row that has none, and belongs with no other."""
    if "group" not in raw.columns:
        return np.full(raw.rows, -1, dtype=np.int64)
    return _named_codes(raw.columns["group"])[1]


# --- what is left out ----------------------------------------------------------------------------------------------


def _reasons(rows: Rows) -> Integers:
    """For each row, the place in `REASONS` of why it is left out, or -1."""
    reasons = np.full(rows.raw.rows, -1, dtype=np.int64)

    def leave_out(which: npt.ArrayLike, reason: str) -> None:
        reasons[np.asarray(which, dtype=bool) & (reasons < 0)] = REASONS.index(reason)

    if rows.raw.images is None:
        leave_out([key is None for key in rows.keys], "missing text")
        leave_out([key == b"" for key in rows.keys], "empty text")
    else:
        for row, flaw in rows.raw.images.flaws.items():
            reasons[row] = REASONS.index(flaw)
    leave_out(rows.label_codes < 0, "missing label")
    leave_out(rows.subset_codes < 0, "missing subset")
    members = np.bincount(rows.label_codes[reasons < 0], minlength=len(rows.labels))
    # A missing label indexes the appended entry.
    leave_out(np.append(members, 0)[rows.label_codes] == 1, "class with one member")
    return reasons


def _exclusions(rows: Rows, reasons: Integers) -> dict[str, Any]:
    found = {reason: np.flatnonzero(reasons == place) for place, reason in enumerate(REASONS)}
    return {reason: {"count": len(out), "examples": rows.named(out)} for reason, out in found.items() if len(out)}


def _in_words(exclusions: dict[str, Any]) -> str:
    return ", ".join(f"{found['count']} {reason}" for reason, found in exclusions.items())


def _check_classes(name: str, rows: Rows, kept: Integers, exclusions: dict[str, Any]) -> None:
    left_out = f"of {rows.raw.rows} rows these are left out: {_in_words(exclusions) or 'none'}"
    classes = np.unique(rows.label_codes[kept])
    if len(classes) == 0:
        raise UserError(f"datasets.{name}", f"no example is left; {left_out}", "check the columns")
    if len(classes) == 1 and rows.labels != [UNLABELLED]:
        only = rows.labels[classes[0]]
        raise UserError(
            f"datasets.{name}.label", f"only the class '{only}' is left; {left_out}", "give at least two classes"
        )


# --- groups and drawing ----------------------------------------------------------------------------------------------


def _draw(name: str, rows: Rows, kept: Integers, units: Integers, *, total: int, seed: int) -> npt.NDArray[np.bool_]:
    labels, subsets = rows.label_codes[kept], rows.subset_codes[kept]
    key, least = f"datasets.{name}.max_examples", drawing.MEMBERS * len(np.unique(labels))
    if total < least:
        raise UserError(key, f"{total} examples cannot hold two of each class", f"allow at least {least}")
    contents = [
        b"\0".join([rows.keys[row] or b"", rows.labels[label].encode(), rows.subsets[subset].encode()])
        for row, label, subset in zip(kept, labels, subsets, strict=True)
    ]
    chosen = drawing.draw(labels, subsets, units, contents, total=total, seed=seed)
    if chosen.sum() > total:
        raise UserError(
            key,
            f"two of each class, in whole groups, are {chosen.sum()} examples, more than {total}",
            f"allow {chosen.sum()}, or leave out datasets.{name}.group",
        )
    return chosen


# --- the table and the record ----------------------------------------------------------------------------------------


def _write(rows: Rows, kept: Integers, groups: Integers, table_path: Path | str) -> str:
    """Write the table, and return the sha256 of its examples."""
    further = [role.removeprefix(sources.FURTHER) for role in rows.raw.columns if role.startswith(sources.FURTHER)]
    schema = examples.schema(_modality(rows.raw), further)
    with (
        replacing(table_path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=["label", "subset", "split"]) as writer,
    ):

        def written() -> Iterator[pa.RecordBatch]:
            for batch in _batches(rows, kept, groups, schema):
                writer.write_batch(batch)
                yield batch

        return examples.digest(written())


def _batches(rows: Rows, kept: Integers, groups: Integers, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    raw, labels, subsets = rows.raw, pa.array(rows.labels), pa.array(rows.subsets)
    content = _content(raw)
    splits = raw.columns["split"].combine_chunks() if "split" in raw.columns else None
    for start in range(0, len(kept), ROWS_PER_GROUP):
        here = kept[start : start + ROWS_PER_GROUP]
        columns = [
            rows.ids.take(here),
            content(here),
            labels.take(rows.label_codes[here]),
            subsets.take(rows.subset_codes[here]),
            pa.nulls(len(here), pa.string()) if splits is None else _blank_as_null(splits.take(here)),
            pa.array(groups[start : start + ROWS_PER_GROUP], pa.int64()),
            *(
                raw.columns[role].combine_chunks().take(here)
                for role in raw.columns
                if role.startswith(sources.FURTHER)
            ),
        ]
        yield pa.record_batch([column.cast(type_) for column, type_ in zip(columns, schema.types, strict=True)], schema)


def _content(raw: sources.Raw) -> Callable[[Integers], pa.Array]:
    """What fetches the content of some rows. Images of a folder are read from disk a second time, and never held all at once."""
    images = raw.images
    if images is None:
        return raw.columns["text"].combine_chunks().take
    return lambda here: pa.array([images.encoded(int(row)) for row in here], pa.binary())


def _blank_as_null(column: pa.Array) -> pa.Array:
    return pa.array([value if value and value.strip() else None for value in column.to_pylist()], column.type)


def _counts(rows: Rows, kept: Integers) -> dict[str, Any]:
    labels = [rows.labels[code] for code in rows.label_codes[kept]]
    subsets = [rows.subsets[code] for code in rows.subset_codes[kept]]
    by_subset: dict[str, dict[str, int]] = {}
    for (subset, label), n in sorted(Counter(zip(subsets, labels, strict=True)).items()):
        by_subset.setdefault(subset, {})[label] = n
    return {
        "labels": {} if rows.labels == [UNLABELLED] else dict(Counter(labels)),
        "subsets": dict(Counter(subsets)),
        "labels_by_subset": by_subset,
    }


def _repetitions(rows: Rows, kept: Integers, duplicates: Integers) -> dict[str, Any]:
    """How many examples repeat an earlier one, and how many have the text of an example with another label."""
    codes, inverse = np.unique(duplicates, return_inverse=True)
    pairs = np.unique(inverse * len(rows.labels) + rows.label_codes[kept])
    n_labels = np.bincount(pairs // len(rows.labels))
    conflicting = np.flatnonzero(n_labels[inverse] > 1)
    return {
        "duplicates": len(kept) - len(codes),
        "conflicting_duplicates": {"count": len(conflicting), "examples": rows.named(kept[conflicting])},
    }


def _characters(raw: sources.Raw, kept: Integers) -> dict[str, float] | None:
    if raw.images is not None:
        return None
    lengths = np.asarray(pc.utf8_length(raw.columns["text"].combine_chunks()))[kept]
    return {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())}
