"""A user's own files or folders: running text, labelled texts in a table, or images in class folders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from core.errors import SpecError
from core.tasks.columns import LABEL_COLUMNS, TEXT_COLUMNS, classes_of, get_column
from core.tasks.data import DATA_SPLITS, Data, ImageData, TextData
from core.tasks.kinds import Kind
from core.tasks.paths import get_permitted, refuse_escapes
from core.tasks.sources.image_folder import Picture, list_pictures, read_pixels
from core.tasks.sources.own_data import Labelled, OwnData, corpus_data, image_data, text_data
from core.tasks.sources.table import TABLE_SUFFIXES, read_table
from core.tasks.sources.text_file import read_text


class File(OwnData):
    """Your own data: a text file, a CSV or JSON Lines table of labelled text, or a folder of images by class."""

    places: ClassVar[frozenset[str]] = frozenset({"validation_file", "test_file"})

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
        kind = Kind(self.kind) if self.kind is not None else _kind_of(paths["train"])
        for split, path in paths.items():
            if path.is_dir() != (kind is Kind.IMAGE_CLASSIFICATION):
                message = f"is a {'folder' if path.is_dir() else 'file'}, which is not supported for {kind}"
                raise SpecError.of(_field(split), path.name, message, "Use a folder for images and a file for text.")
        if kind is Kind.IMAGE_CLASSIFICATION:
            return self._images(paths)
        if kind is Kind.TEXT_CLASSIFICATION:
            return self._texts(paths)
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

    def _texts(self, paths: Mapping[str, Path]) -> TextData:
        parts = [self._read_rows(split, path) for split, path in paths.items()]
        ends = np.cumsum([len(part.texts) for part in parts])

        def place(index: int) -> str:
            part = parts[int(np.searchsorted(ends, index, side="right"))]
            return part.place(index - int(ends[parts.index(part)]) + len(part.texts))

        texts = [text for part in parts for text in part.texts]
        class_names, labels = classes_of([label for part in parts for label in part.labels], place)
        given = {
            split: np.arange(end - len(part.texts), end) for split, part, end in zip(paths, parts, ends, strict=True)
        }
        return text_data(self, texts, Labelled(labels, class_names, given))

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


def _kind_of(path: Path) -> Kind:
    if path.is_dir():
        return Kind.IMAGE_CLASSIFICATION
    return Kind.TEXT_CLASSIFICATION if path.suffix.lower() in TABLE_SUFFIXES else Kind.LANGUAGE_MODELLING
