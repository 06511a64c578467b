"""Rows of a CSV or JSON Lines file."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import SpecError
from core.tasks.sources.text_file import read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
DELIMITERS = (",", ";", "\t", "|")
MOST_ROWS = 2_000_000
MOST_COLUMNS = 1_000


@dataclass(frozen=True)
class Table:
    """A file's rows by column; missing values of JSON Lines are None."""

    columns: dict[str, list[Any]]
    lines: list[int]  # where each row ends in the file, from 1


def read_table(path: Path) -> Table:
    """Read the table. Raises SpecError, naming the line, if it cannot be read."""
    rows = _json_rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(path)
    table = Table({}, [])
    for line, row in rows:
        if len(table.lines) == MOST_ROWS:
            raise SpecError.of("task.source", path.name, f"has more than {MOST_ROWS:,} rows", "Use a part of it.")
        for name in row:
            table.columns.setdefault(name, [None] * len(table.lines))
        if len(table.columns) > MOST_COLUMNS:
            raise _broken(path, line, f"exceeds the limit of {MOST_COLUMNS:,} columns")
        for name, values in table.columns.items():
            values.append(row.get(name))
        table.lines.append(line)
    if not table.lines:
        raise SpecError.of("task.source", path.name, "has no rows", "Choose a file with examples.")
    return table


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = _delimiter(path, first)
    padded = f"{delimiter} " in first  # "text, label": the blanks belong to the separator
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=padded, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        _require_once(path, reader.line_num, [name for name in header if name])
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise _broken(path, reader.line_num, f"has {len(row)} fields instead of {len(header)}")
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise _broken(path, reader.line_num, str(error)) from error


def _delimiter(path: Path, header: str) -> str:
    """The delimiter that gives the most names in the header; the usual one of the file type in case of a tie."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    return max((usual, *DELIMITERS), key=lambda each: len(next(csv.reader([header], delimiter=each), [])))


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue

        def to_object(pairs: list[tuple[str, Any]], line: int = line) -> dict[str, Any]:
            _require_once(path, line, [name for name, _ in pairs])
            return dict(pairs)

        try:
            row = json.loads(text, object_pairs_hook=to_object)
        except json.JSONDecodeError as error:
            raise _broken(path, line, f"is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise _broken(path, line, "is not a JSON object")
        if "\\u" in text:
            _require_characters(path, line, row)
        yield line, row


def _require_once(path: Path, line: int, names: list[str]) -> None:
    """Raise SpecError if a column appears twice: only one of the two could be read."""
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise _broken(path, line, f"has the column {twice[0]!r} twice")


def _require_characters(path: Path, line: int, row: dict[str, Any]) -> None:
    """Raise SpecError for half of a surrogate pair, which JSON can represent but text cannot."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _broken(path, line, "contains half of a surrogate pair (\\ud800 to \\udfff), not a character") from error


def _broken(path: Path, line: int, message: str) -> SpecError:
    return SpecError.of("task.source", path.name, f"line {line:,} {message}", "Correct the file there.")
