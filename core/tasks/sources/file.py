"""A user's own file or folder: running text, labelled texts in a table, or pictures in class folders."""

from pathlib import Path

import numpy as np

from core.errors import SpecError
from core.tasks.columns import LABEL_COLUMNS, TEXT_COLUMNS, classes_of, get_column
from core.tasks.data import Data, ImageData, TextData
from core.tasks.kinds import Kind
from core.tasks.paths import get_permitted, refuse_escapes
from core.tasks.sources.image_folder import list_pictures, read_pixels
from core.tasks.sources.own_data import Labelled, OwnData, corpus_data, image_data, text_data
from core.tasks.sources.table import TABLE_SUFFIXES, read_columns
from core.tasks.sources.text_file import read_text


class File(OwnData):
    """Your own data: a text, a CSV or JSON Lines table of labelled texts, or a folder of class folders of pictures."""

    def read(self, name: str) -> Data:
        """What lies at the path `name` below the data folders."""
        path = get_permitted("task.source", f"file:{name}", name)
        kind = Kind(self.kind) if self.kind is not None else _kind_of(path)
        if path.is_dir() != (kind is Kind.IMAGE_CLASSIFICATION):
            message = f"is a {'folder' if path.is_dir() else 'file'}, which cannot be for {kind}"
            raise SpecError.of("task.source", path.name, message, "Give pictures as a folder, texts as a file.")
        if kind is Kind.IMAGE_CLASSIFICATION:
            return self._images(path)
        return self._texts(path) if kind is Kind.TEXT_CLASSIFICATION else corpus_data(self, {"train": read_text(path)})

    def _images(self, folder: Path) -> ImageData:
        refuse_escapes("task.source", folder.name, folder)
        pictures = list_pictures(folder)
        class_names, labels = classes_of([picture.label for picture in pictures])
        of_split = {
            split: np.array([i for i, picture in enumerate(pictures) if picture.split == split], dtype=np.int64)
            for split in {picture.split for picture in pictures}
        }
        pixels = read_pixels(folder, pictures, self.image_size)
        return image_data(self, pixels, Labelled(labels, class_names, of_split))

    def _texts(self, path: Path) -> TextData:
        columns = read_columns(path)
        text = get_column(list(columns), self.text_column, TEXT_COLUMNS, "text")
        label = get_column(list(columns), self.label_column, LABEL_COLUMNS, "label")
        class_names, labels = classes_of(columns[label])
        for row, value in enumerate(columns[text], start=1):
            if not isinstance(value, str):
                message = f"holds {value!r} in row {row:,}, which is not a text"
                raise SpecError.of("task.text_column", text, message, "Give a text in every row.")
        return text_data(self, columns[text], Labelled(labels, class_names, {"train": np.arange(len(labels))}))


def _kind_of(path: Path) -> Kind:
    if path.is_dir():
        return Kind.IMAGE_CLASSIFICATION
    return Kind.TEXT_CLASSIFICATION if path.suffix.lower() in TABLE_SUFFIXES else Kind.LANGUAGE_MODELLING
