"""Rows of a CSV or JSON Lines file."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import SpecError
from core.tasks.sources.text_file import read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MOST_ROWS = 2_000_000


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The table by column. Raises SpecError, naming the line, where it cannot be read."""
    lines = _json_rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(path)
    columns: dict[str, list[Any]] = {}
    for n_rows, (line, row) in enumerate(lines, start=1):
        if n_rows > MOST_ROWS:
            message = f"has more than {MOST_ROWS:,} rows"
            raise SpecError.of("task.source", path.name, message, "Give a part of it.")
        columns = columns or {name: [] for name in row}
        if row.keys() != columns.keys():
            raise _broken(path, line, f"has the columns {', '.join(row)} instead of {', '.join(columns)}")
        for name, value in row.items():
            columns[name].append(value)
    if not columns:
        raise SpecError.of("task.source", path.name, "has no rows", "Choose a file with examples.")
    return columns


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise _broken(path, reader.line_num, f"has {len(row)} fields instead of {len(header)}")
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise _broken(path, reader.line_num, str(error)) from error


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise _broken(path, line, f"is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise _broken(path, line, "is not an object with named values")
        yield line, row


def _broken(path: Path, line: int, message: str) -> SpecError:
    return SpecError.of("task.source", path.name, f"line {line:,} {message}", "Mend the file there.")
