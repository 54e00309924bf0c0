"""Tables on disk, as columns of text.

A user's table is trusted in nothing. Its cells become text or missing, and what cannot be read in exactly one way is
refused with the file and the line: bytes that are not UTF-8, rows of unequal length, a quote that never closes, a key
given twice, numbers and words in one column. Values that look like numbers keep their spelling in CSV and TSV, where
'01' and '1' are two labels; where a format has types of its own, true is 'true' and 1.0 is '1'.

Columns are asked for by role (text, label, id, subset, split, group, image, further ones), because a role is also the config key to name
when its column will not do. Only the columns asked for are kept in memory.
"""

import csv
import json
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*DELIMITERS, ".jsonl", ".parquet")

PACKED_TOGETHER = 1 << 14

# The one role that is not text.
IMAGE = "image"

# UTF-32's little-endian mark begins with UTF-16's, so it stands first.
_MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Cells:
    """The columns a dataset asks for, by role, as large_string with null for a missing cell.

    `kinds` tells what the values were before ("text", "a number", "true or false"; None where all are missing), and
    `place` words where a row stands, for messages. `images` holds the encoded images, if a column of them is asked for.
    """

    columns: dict[str, pa.ChunkedArray]
    kinds: dict[str, str | None]
    rows: int
    place: Callable[[int], str]
    images: pa.ChunkedArray | None = None


def read(path: Path, dataset: str, wanted: dict[str, str]) -> Cells:
    """The columns `wanted` (role to column name) of a table file, told by its ending."""
    ending = path.suffix.lower()
    if path.is_dir():
        raise UserError(
            str(path), "this is a folder, and a file is expected", "name the file, or use 'saved' or 'images' as source"
        )
    if ending not in ENDINGS:
        raise UserError(str(path), f"the ending '{path.suffix}' is not known", f"give a file in {', '.join(ENDINGS)}")
    try:
        if path.stat().st_size == 0:
            raise UserError(str(path), "the file is empty", "check that it was written completely")
        if ending == ".parquet":
            return read_parquet(path, dataset, wanted)
        if IMAGE in wanted:
            wrong = f"a {ending} file holds no images"
            raise UserError(f"datasets.{dataset}.image", wrong, "use Parquet, a saved dataset, or a folder of images")
        if ending == ".jsonl":
            return _read_jsonl(path, dataset, wanted)
        return _read_csv(path, dataset, wanted, DELIMITERS[ending])
    except FileNotFoundError:
        raise UserError(
            str(path), "there is no such file", "check the path; it counts from the folder the command runs in"
        ) from None
    except PermissionError:
        raise UserError(str(path), "this account may not read the file", "change its permissions") from None
    except UnicodeDecodeError:
        raise _wrong_encoding(path) from None


def check_columns(dataset: str, wanted: dict[str, str], there: Iterable[str]) -> None:
    """Refuse a wanted column that is not there, naming those that are."""
    there = list(there)
    for role, column in wanted.items():
        if column not in there:
            known = ", ".join(repr(name) for name in there[:20]) + (", ..." if len(there) > 20 else "")
            raise UserError(
                f"datasets.{dataset}.{role}", f"there is no column '{column}'", f"name one of the columns {known}"
            )


def _check_names(path: Path, names: list[str]) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise UserError(str(path), f"two columns are called {name!r}", "rename one of them")
        seen.add(name)


def _refuse_empty(path: Path) -> NoReturn:
    raise UserError(str(path), "the table has no rows", "check that it was written completely")


def _wrong_encoding(path: Path) -> UserError:
    """Where a file stops being UTF-8. Reads it again, in bytes, because decoders count from their own buffer."""
    with path.open("rb") as handle:
        start = handle.read(4)
        for mark, encoding in _MARKS.items():
            if start.startswith(mark):
                return UserError(str(path), f"the file is {encoding}, not UTF-8", "save it as UTF-8")
        handle.seek(0)
        offset = 0
        for number, line in enumerate(handle, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                at, byte = offset + error.start, line[error.start]
                return UserError(
                    f"{path}, line {number}",
                    f"byte {at} of the file (0x{byte:02x}) is not UTF-8",
                    "save the file as UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8",
                )
            offset += len(line)
    raise AssertionError(f"{path} decodes as UTF-8 on second reading")


# --- CSV and TSV -----------------------------------------------------------------------------------------------------


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lift the csv module's limit of 128 KB a cell, which is one number for the whole process, and put it back."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read_csv(path: Path, dataset: str, wanted: dict[str, str], delimiter: str) -> Cells:
    with _long_cells(), path.open(encoding="utf-8-sig", newline="") as handle:
        records = _records(path, csv.reader(handle, delimiter=delimiter, strict=True))
        _, header = next(records, (0, None))
        if header is None:
            _refuse_empty(path)
        _check_names(path, header)
        check_columns(dataset, wanted, header)
        columns = {role: Column() for role in wanted}
        kept = [(header.index(column), columns[role]) for role, column in wanted.items()]
        lines = array("q")
        for line, cells in records:
            if len(cells) != len(header):
                raise UserError(
                    f"{path}, line {line}",
                    f"this row has {len(cells)} cells and the header {len(header)}",
                    "put cells that hold the separator in double quotes",
                )
            lines.append(line)
            for position, column in kept:
                column.append(cells[position])
    if not lines:
        _refuse_empty(path)
    whole = {role: column.whole() for role, column in columns.items()}
    return Cells(whole, dict.fromkeys(wanted, "text"), len(lines), lambda row: f"{path}, line {lines[row]}")


class Column:
    """Strings that come one by one. Every now and then they are packed, because Python takes 50 bytes more for each."""

    def __init__(self) -> None:
        self.packed: list[pa.Array] = []
        self.loose: list[str] = []

    def append(self, value: str) -> None:
        self.loose.append(value)
        if len(self.loose) == PACKED_TOGETHER:
            self._pack()

    def whole(self) -> pa.ChunkedArray:
        self._pack()
        return pa.chunked_array(self.packed)

    def _pack(self) -> None:
        self.packed.append(pa.array(self.loose, pa.large_string()))
        self.loose = []


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, each with the line it begins on; a row may go on over many. Blank lines are no rows."""
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise UserError(
                f"{path}, line {begin}",
                f"a quoted cell of the row that begins here is not closed properly (seen at line {reader.line_num})",
                "write a double quote inside a quoted cell twice, and quote cells that begin with one",
            ) from None
        if cells:
            yield begin, cells


def _strings(values: list[str | None] | list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.large_string())])


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path, dataset: str, wanted: dict[str, str]) -> Cells:
    values: dict[str, list[Any]] = {role: [] for role in wanted}
    lines, there = array("q"), dict[str, None]()

    def place(row: int) -> str:
        return f"{path}, line {lines[row]}"

    with path.open(encoding="utf-8-sig", newline="\n") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            record = _json_object(path, number, line)
            lines.append(number)
            there.update(dict.fromkeys(record))
            for role, column in wanted.items():
                values[role].append(record.get(column))
    if not lines:
        _refuse_empty(path)
    check_columns(dataset, wanted, there)
    kinds = {role: _one_kind(values[role], role, column, place) for role, column in wanted.items()}
    columns = {role: _json_strings(values[role], place) for role in wanted}
    return Cells(columns, kinds, len(lines), place)


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        wrong = f"this is not JSON ({error.msg} at character {error.pos + 1})"
    except (ValueError, RecursionError) as error:
        wrong = f"this is not usable JSON ({error})"
    else:
        if isinstance(record, dict):
            return record
        wrong = "the line holds a JSON value that is not an object"
    raise UserError(f"{path}, line {number}", wrong, "write one JSON object on each line, such as {...}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return record


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: Any) -> str | None:
    """What a value is, in the words of a message; None is missing."""
    if value is None or isinstance(value, str):
        return None if value is None else "text"
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "a list or an object"


def _one_kind(values: list[Any], role: str, column: str, place: Callable[[int], str]) -> str | None:
    """The kind that all values of a column are; two kinds in one column make '1' and 1 the same label in silence."""
    first = None
    for row, value in enumerate(values):
        kind = _kind(value)
        if kind is None:
            continue
        if kind == "a list or an object" or (role == "text" and kind != "text"):
            raise UserError(place(row), f"'{column}' holds {kind}, not text", "write it as a string")
        if first is not None and kind != first[1]:
            raise UserError(
                place(row),
                f"'{column}' holds {kind} ({_short(value)}), and {first[1]} ({_short(values[first[0]])}) at "
                f"{place(first[0])}",
                "write all its values as strings",
            )
        first = first or (row, kind)
    return first and first[1]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def _json_strings(values: list[Any], place: Callable[[int], str]) -> pa.ChunkedArray:
    texts = [None if value is None else _spelled(value) for value in values]
    try:
        return _strings(texts)
    except UnicodeEncodeError:
        row = next(row for row, text in enumerate(texts) if text is not None and not encodes(text))
        raise UserError(
            place(row),
            "a string holds half of a surrogate pair (\\ud800 to \\udfff), which is no character",
            "write the whole character, or remove the half",
        ) from None


def encodes(text: str) -> bool:
    """Whether a string is text: half a surrogate pair, which JSON and file names can smuggle in, is not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _spelled(value: Any) -> str:
    """A typed value as text: whole floats as whole numbers, so that a label survives a detour through floats."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        # Adding zero turns -0.0 into 0.0.
        return np.format_float_positional(value + 0, trim="-")
    return str(value)


# --- Parquet ---------------------------------------------------------------------------------------------------------


def read_parquet(path: Path, dataset: str, wanted: dict[str, str]) -> Cells:
    """The columns `wanted` of a Parquet file. Class names that Hugging Face datasets left in it are used."""
    try:
        # A `ParquetFile`, because `read_table` takes a folder named a=b on the way to the file for a column.
        with pq.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            check_columns(dataset, wanted, file.schema_arrow.names)
            table = file.read(columns=sorted(set(wanted.values())))
        check_sound(table)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(str(path), f"not readable as Parquet ({reason})", "write the file again") from None
    if table.num_rows == 0:
        _refuse_empty(path)
    return arrow_cells(table, dataset, wanted, _class_names(table.schema), lambda row: f"{path}, row {row}")


def check_sound(table: pa.Table) -> None:
    """Raise an `ArrowException` where a table leads outside of its own memory.

    Arrow takes a file's word for where each value lies, and ends the process when it looks there in vain. Whether texts are
    UTF-8 is another question, which has its own answer.
    """
    for column in table.columns:
        for chunk in column.chunks:
            (chunk.view(_bytes_for(chunk.type)) if _arrow_kind(chunk.type) == "text" else chunk).validate(full=True)


def _bytes_for(text: pa.DataType) -> pa.DataType:
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(text, pa.binary_view())


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes of integer label columns, as Hugging Face datasets writes them into a Parquet schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: list(map(str, value["names"]))
            for name, value in features.items()
            if value.get("_type") == "ClassLabel"
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        # The note is a courtesy of one library; a table without it, or with another's, is a table all the same.
        return {}


def arrow_cells(
    table: pa.Table, dataset: str, wanted: dict[str, str], names: dict[str, list[str]], place: Callable[[int], str]
) -> Cells:
    """The columns `wanted` of an Arrow table as text; `names` holds the class names of integer label columns."""
    columns, kinds = {}, {}
    images = _images(table[wanted[IMAGE]], dataset, wanted[IMAGE]) if IMAGE in wanted else None
    for role, column in wanted.items():
        if role == IMAGE:
            continue
        key, values = f"datasets.{dataset}.{role}", table[column]
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        kind = _arrow_kind(values.type)
        if values.null_count == len(values):
            columns[role], kind = pa.chunked_array([pa.nulls(len(values), pa.large_string())]), None
        elif kind == "text":
            columns[role] = _checked_text(values.cast(pa.large_string()), column, place)
        elif kind is None or role == "text":
            raise UserError(key, f"column '{column}' holds {values.type}, not text", "name a column of strings")
        elif column in names and pa.types.is_integer(values.type):
            columns[role], kind = _named_classes(values, key, column, names[column]), "text"
        else:
            columns[role] = _by_value(values, _spelled_or_missing)
        kinds[role] = kind
    return Cells(columns, kinds, table.num_rows, place, images)


def _images(values: pa.ChunkedArray, dataset: str, column: str) -> pa.ChunkedArray:
    """The encoded images of a column: bytes, or the pairs of bytes and path that Hugging Face datasets writes."""
    if pa.types.is_struct(values.type) and "bytes" in [field.name for field in values.type]:
        values = pa.chunked_array([chunk.field("bytes") for chunk in values.chunks], values.type.field("bytes").type)
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        wrong = f"column '{column}' holds {values.type}, not encoded images"
        raise UserError(f"datasets.{dataset}.image", wrong, "name a column of PNG or JPEG files as bytes")
    return values


def _arrow_kind(type_: pa.DataType) -> str | None:
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_boolean(type_):
        return "true or false"
    return "a number" if pa.types.is_integer(type_) or pa.types.is_floating(type_) else None


def _checked_text(values: pa.ChunkedArray, column: str, place: Callable[[int], str]) -> pa.ChunkedArray:
    """Arrow takes a writer's word for what is UTF-8; whoever reads the bytes later would be the one to fail."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        for row, value in enumerate(values.cast(pa.large_binary())):
            try:
                (value.as_py() or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    place(row), f"'{column}' is not UTF-8 at byte {error.start}", "write the column as UTF-8"
                ) from None
        raise
    return values


def _spelled_or_missing(value: Any) -> str | None:
    """pandas writes a missing number as NaN."""
    return None if isinstance(value, np.floating) and np.isnan(value) else _spelled(value)


def _named_classes(values: pa.ChunkedArray, key: str, column: str, names: list[str]) -> pa.ChunkedArray:
    def name_of(value: Any) -> str | None:
        if value >= len(names):
            raise UserError(
                key, f"column '{column}' holds class {value}, and only {len(names)} have names", "correct the column"
            )
        # A negative class is how published test sets say that a label is withheld.
        return names[value] if value >= 0 else None

    return _by_value(values, name_of)


def _by_value(values: pa.ChunkedArray, spell: Callable[[Any], str | None]) -> pa.ChunkedArray:
    """`spell` of each value, called once for each that is distinct."""
    coded = values.combine_chunks().dictionary_encode()
    spelled = [spell(value) for value in coded.dictionary.to_numpy(zero_copy_only=False)]
    return pa.chunked_array([pa.array(spelled, pa.large_string()).take(coded.indices)])
