"""A user's own files or folders: running text, labelled texts in a table, or images in class folders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from core.errors import SpecError
from core.tasks.columns import LABEL_COLUMNS, TEXT_COLUMNS, Place, classes_of, get_column
from core.tasks.data import DATA_SPLITS, Data, ImageData, TextData
from core.tasks.kinds import Kind
from core.tasks.paths import get_permitted, refuse_escapes
from core.tasks.sources.embedding_table import embedding_rows
from core.tasks.sources.image_folder import Picture, list_pictures, read_pixels
from core.tasks.sources.own_data import (
    EmbeddingRows,
    Labelled,
    OwnData,
    corpus_data,
    embedding_data,
    image_data,
    text_data,
)
from core.tasks.sources.table import TABLE_SUFFIXES, read_table
from core.tasks.sources.text_file import read_text


class File(OwnData):
    """Your own data: a text file, a CSV or JSON Lines table of labelled text or pairs, or a folder of images."""

    places: ClassVar[frozenset[str]] = OwnData.places | {"validation_file", "test_file"}

    validation_file: str | None = Field(
        None,
        description="file or folder with the validation examples, in the same format as train",
        json_schema_extra={"when_empty": "cut from train"},
    )
    test_file: str | None = Field(
        None,
        description="file or folder with the test examples, in the same format as train",
        json_schema_extra={"when_empty": "cut from train"},
    )

    def read(self, name: str) -> Data:
        """Read the path `name`; validation and test from their own paths if given."""
        paths = dict(self._paths(name))
        kind = Kind(self.kind) if self.kind is not None else self._kind_of(paths["train"])
        for split, path in paths.items():
            if path.is_dir() != (kind is Kind.IMAGE_CLASSIFICATION):
                message = f"is a {'folder' if path.is_dir() else 'file'}, which is not supported for {kind}"
                raise SpecError.of(_field(split), path.name, message, "Use a folder for images and a file for text.")
        if kind is Kind.IMAGE_CLASSIFICATION:
            return self._images(paths)
        if kind is Kind.TEXT_CLASSIFICATION:
            return self._texts(paths)
        if kind is Kind.EMBEDDINGS:
            return embedding_data(self, self._embedding_rows(paths))
        return corpus_data(self, {split: read_text(path) for split, path in paths.items()})

    def _paths(self, name: str) -> Iterator[tuple[str, Path]]:
        yield "train", get_permitted("task.source", f"file:{name}", name)
        for split, given in (("validation", self.validation_file), ("test", self.test_file)):
            if given is not None:
                yield split, get_permitted(_field(split), given, given.removeprefix("file:"))

    def _images(self, paths: Mapping[str, Path]) -> ImageData:
        pictures = [picture for split in paths for picture in _list_split(paths, split)]
        class_names, labels = classes_of([picture.label for picture in pictures])
        splits = np.array([picture.split for picture in pictures])
        given = {split: np.flatnonzero(splits == split) for split in DATA_SPLITS if split in splits}
        pixels, warnings = read_pixels(pictures, self.image_size)
        return image_data(self, pixels, Labelled(labels, class_names, given), warnings)

    def _kind_of(self, path: Path) -> Kind:
        if path.is_dir():
            return Kind.IMAGE_CLASSIFICATION
        if self.second_column or self.score_column:
            return Kind.EMBEDDINGS
        return Kind.TEXT_CLASSIFICATION if path.suffix.lower() in TABLE_SUFFIXES else Kind.LANGUAGE_MODELLING

    def _texts(self, paths: Mapping[str, Path]) -> TextData:
        parts = [self._read_rows(split, path) for split, path in paths.items()]
        texts = [text for part in parts for text in part.texts]
        class_names, labels = classes_of([label for part in parts for label in part.labels], _place_in(parts))
        given = _given(list(paths), [len(part.texts) for part in parts])
        return text_data(self, texts, Labelled(labels, class_names, given))

    def _embedding_rows(self, paths: Mapping[str, Path]) -> EmbeddingRows:
        """Of tables their rows, of other files one text per line that is not blank."""
        if any(path.suffix.lower() not in TABLE_SUFFIXES for path in paths.values()):
            lines = [[line for line in read_text(path).splitlines() if line.strip()] for path in paths.values()]
            return EmbeddingRows([text for part in lines for text in part], _given(list(paths), list(map(len, lines))))
        tables = [read_table(path) for path in paths.values()]
        parts = [
            _Rows([], [], table.lines, "" if split == "train" else f" of {path.name}")
            for (split, path), table in zip(paths.items(), tables, strict=True)
        ]
        columns = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
        given = _given(list(paths), [len(table.lines) for table in tables])
        return embedding_rows(
            self, columns, lambda name: [v for table in tables for v in table.columns[name]], given, _place_in(parts)
        )

    def _read_rows(self, split: str, path: Path) -> "_Rows":
        table = read_table(path)
        text = get_column(list(table.columns), self.text_column, TEXT_COLUMNS, "text")
        label = get_column(list(table.columns), self.label_column, LABEL_COLUMNS, "label")
        file = "" if split == "train" else f" of {path.name}"
        rows = _Rows(table.columns[text], table.columns[label], table.lines, file)
        for index, value in enumerate(rows.texts):
            if not isinstance(value, str):
                message = f"contains {value!r} in {rows.place(index)}, which is not text"
                raise SpecError.of("task.text_column", text, message, "Provide text in every row.")
        return rows


@dataclass(frozen=True, eq=False)
class _Rows:
    """The examples of a table with their lines."""

    texts: list[str]
    labels: list[Any]
    lines: list[int]
    file: str  # " of test.csv"; empty for the first one

    def place(self, index: int) -> str:
        return f"line {self.lines[index]:,}{self.file}"


def _given(splits: Sequence[str], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """The rows of each split, where one file's follow another's."""
    ends = np.cumsum(counts)
    return {split: np.arange(end - n, end) for split, n, end in zip(splits, counts, ends, strict=True)}


def _place_in(parts: Sequence[_Rows]) -> Place:
    """Where an example of several files lies."""
    ends = np.cumsum([len(part.lines) for part in parts])

    def place(index: int) -> str:
        part = parts[int(np.searchsorted(ends, index, side="right"))]
        return part.place(index - int(ends[parts.index(part)]) + len(part.lines))

    return place


def _list_split(paths: Mapping[str, Path], split: str) -> list[Picture]:
    """The images of one path; if validation or test have their own paths, no path may contain split folders."""
    folder = paths[split]
    refuse_escapes(_field(split), folder.name, folder)
    pictures = list_pictures(folder)
    if len(paths) > 1 and any(picture.split != "train" for picture in pictures):
        message = "contains split folders, and splits are also given by validation_file or test_file"
        raise SpecError.of(_field(split), folder.name, message, "Use only one of the two.")
    return [replace(picture, split=split) for picture in pictures] if len(paths) > 1 else pictures


def _field(split: str) -> str:
    return "task.source" if split == "train" else f"task.{split}_file"
