"""A data set of the Hugging Face Hub, or a folder that `datasets` can read. No code of the data set is run."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import Field

from core.errors import SpecError
from core.settings import settings
from core.tasks.columns import IMAGE_COLUMNS, LABEL_COLUMNS, TEXT_COLUMNS, find_column, get_column, row_of
from core.tasks.data import DATA_SPLITS, CorpusData, Data, ImageData, TextData
from core.tasks.kinds import Kind
from core.tasks.paths import find_permitted, refuse_escapes
from core.tasks.pictures import common_shape, header_of, pixels_of, require_reasonable, value_range
from core.tasks.sources.embedding_table import embedding_rows
from core.tasks.sources.hugging_face_labels import is_unlabelled, labels_of
from core.tasks.sources.own_data import EmbeddingRows, OwnData, corpus_data, embedding_data, image_data, text_data
from core.tasks.sources.split_folders import SPLIT_WORDS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder

SPLIT_NAMES = {split: [word for word, of in SPLIT_WORDS.items() if of == split] for split in DATA_SPLITS}
MOST_CHARACTERS = 128 * 2**20
# Of a folder's files `datasets` reads many more formats, some of which hold or unpack objects of Python.
DATA_SUFFIXES = frozenset({".parquet", ".arrow", ".csv", ".jsonl", ".json", ".txt", ".png", ".jpg", ".jpeg"})
DESCRIPTION = "README.md"
HUB = "hf://"
# Without an owner, `datasets` takes names such as "csv" for its own readers, and gives them the folder it runs in.
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class HuggingFaceData(OwnData):
    """A data set from the Hugging Face Hub or a local copy: text, labelled text or labelled images."""

    config: str | None = Field(
        None,
        description="configuration of the data set; required if it has several",
        json_schema_extra={"when_empty": "the only one"},
    )
    revision: str | None = Field(
        None, description="branch, tag or commit; the latest if empty", json_schema_extra={"when_empty": "the newest"}
    )
    train_split: str | None = Field(
        None, description="training split; 'train' if empty", json_schema_extra={"when_empty": "train"}
    )
    validation_split: str | None = Field(
        None,
        description="validation split; cut from train if the data set has none",
        json_schema_extra={"when_empty": "cut from train"},
    )
    test_split: str | None = Field(
        None,
        description="test split; cut from train if the data set has none",
        json_schema_extra={"when_empty": "cut from train"},
    )
    image_column: str | None = Field(
        None,
        description="column with the images; found by its name if empty",
        json_schema_extra={"when_empty": "by name"},
    )
    max_examples: int = Field(
        100_000, ge=100, le=2_000_000, description="maximum number of examples to read from the start of each split"
    )

    def read(self, name: str) -> Data:
        """The data set or folder `name`."""
        splits = self._splits(_load(name, self.config, self.revision))
        columns = splits["train"].column_names
        kind = Kind(self.kind) if self.kind is not None else self._kind_of(columns)
        if kind is Kind.LANGUAGE_MODELLING:
            return self._corpus(splits, get_column(columns, self.text_column, TEXT_COLUMNS, "text"))
        if kind is Kind.EMBEDDINGS:
            return embedding_data(self, self._embedding_rows(splits))
        label = get_column(columns, self.label_column, LABEL_COLUMNS, "label")
        splits = {split: rows for split, rows in splits.items() if not is_unlabelled(rows, label)}
        if kind is Kind.IMAGE_CLASSIFICATION:
            return self._images(splits, get_column(columns, self.image_column, IMAGE_COLUMNS, "image"), label)
        return self._texts(splits, get_column(columns, self.text_column, TEXT_COLUMNS, "text"), label)

    def _splits(self, loaded: Mapping[str, "Dataset"]) -> dict[str, "Dataset"]:
        """The train, validation and test splits of the data set, each with at most `max_examples` examples."""
        wanted = {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}
        splits = {}
        for split, given in wanted.items():
            names = (given,) if given else SPLIT_NAMES[split]
            found = next((name for name in names if name in loaded), None)
            if found is not None:
                splits[split] = loaded[found].select(range(min(self.max_examples, len(loaded[found]))))
            elif given or split == "train":
                message = f"is not a split of the data set, which has {', '.join(loaded)}"
                raise SpecError.of(
                    f"task.{split}_split", given or "train", message, f"Set {split}_split to one of them."
                )
        return splits

    def _kind_of(self, columns: list[str]) -> Kind:
        if self.second_column or self.score_column:
            return Kind.EMBEDDINGS
        if self.image_column or find_column(columns, None, IMAGE_COLUMNS):
            return Kind.IMAGE_CLASSIFICATION
        if self.label_column or find_column(columns, None, LABEL_COLUMNS):
            return Kind.TEXT_CLASSIFICATION
        return Kind.LANGUAGE_MODELLING

    def _corpus(self, splits: Mapping[str, "Dataset"], column: str) -> CorpusData:
        texts = {split: "\n".join(_texts_of(rows, column)) for split, rows in splits.items()}
        n_characters = sum(map(len, texts.values()))
        if n_characters > MOST_CHARACTERS:
            message = f"leaves {n_characters:,} characters of text"
            raise SpecError.of(
                "task.max_examples", self.max_examples, message, f"Choose less than {MOST_CHARACTERS:,}."
            )
        return corpus_data(self, texts)

    def _texts(self, splits: Mapping[str, "Dataset"], text: str, label: str) -> TextData:
        texts = [each for rows in splits.values() for each in _texts_of(rows, text)]
        return text_data(self, texts, labels_of(splits, label))

    def _embedding_rows(self, splits: Mapping[str, "Dataset"]) -> EmbeddingRows:
        ends = np.cumsum([len(rows) for rows in splits.values()])
        given = {
            split: np.arange(end - len(rows), end) for (split, rows), end in zip(splits.items(), ends, strict=True)
        }
        columns = splits["train"].column_names
        return embedding_rows(
            self, columns, lambda name: [v for rows in splits.values() for v in rows[name][:]], given, row_of
        )

    def _images(self, splits: Mapping[str, "Dataset"], image: str, label: str) -> ImageData:
        examples = labels_of(splits, label)
        headers = [header_of(picture, name) for name, picture in _pictures_of(splits, image)]
        shape, values = common_shape(headers, self.image_size), value_range(headers)
        channels, height, width = shape
        pixels = np.empty((len(headers), height, width, channels), dtype=np.uint8)
        for i, (_, picture) in enumerate(_pictures_of(splits, image)):
            pixels[i] = pixels_of(picture, shape, values)
        return image_data(self, pixels, examples, values.warnings(headers))


def _load(name: str, config: str | None, revision: str | None) -> Mapping[str, "Dataset"]:
    """All splits, from a folder in the data folders or else from the Hub."""
    import datasets  # seconds to import, which only this source needs
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

    source = f"hf:{name}"
    folder = find_permitted(name)
    if folder is None and (not REPOSITORY.fullmatch(name) or Path(name).exists()):
        raise SpecError.of(
            "task.source",
            source,
            "is neither a folder in the server's data folders nor the name of a repository",
            "Write hf:<owner>/<name>, or ask the server's administrator to list the folder in SLIMBOARD_DATA.",
        )
    if folder is not None:
        refuse_escapes("task.source", source, folder)
        _refuse_other_formats(source, folder)
    cache = str(settings().home.absolute() / "cache" / "datasets")
    try:
        if folder is None:
            return _built(datasets.load_dataset_builder(name, config, revision=revision, cache_dir=cache), source, None)
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            return _saved(source, folder)
        return _built(datasets.load_dataset_builder(str(folder), config, cache_dir=cache), source, folder)
    except SpecError:
        raise
    except (DatasetNotFoundError, DataFilesNotFoundError) as error:
        message = f"cannot be downloaded: {error}"
        remedy = "Check the name. A gated or private data set needs HF_TOKEN in the worker's environment."
        raise SpecError.of("task.source", source, message, remedy) from error
    except ConnectionError as error:
        message = "is not on this worker, and the worker cannot reach the Hugging Face Hub"
        remedy = "Connect the worker to the internet, or put the data into a folder listed in SLIMBOARD_DATA."
        raise SpecError.of("task.source", source, message, remedy) from error
    except (ValueError, RuntimeError, DatasetGenerationError) as error:  # no such configuration, a script, broken files
        raise SpecError.of(
            "task.source", source, f"cannot be loaded: {error}", "Set config, or choose another data set."
        ) from error


def _built(builder: "DatasetBuilder", source: str, folder: Path | None) -> Mapping[str, "Dataset"]:
    """All splits, read only after checking their locations: a data set's README may refer to files anywhere."""
    for files in (builder.config.data_files or {}).values():
        _refuse_foreign(source, folder, files)
    builder.download_and_prepare()
    return builder.as_dataset()


def _saved(source: str, folder: Path) -> Mapping[str, "Dataset"]:
    """A data set written by `save_to_disk`, memory-mapped and not yet read."""
    import datasets

    saved = datasets.load_from_disk(str(folder))
    splits = saved if isinstance(saved, Mapping) else {"train": saved}
    for rows in splits.values():
        _refuse_foreign(source, folder, [file["filename"] for file in rows.cache_files])
    return splits


def _refuse_foreign(source: str, folder: Path | None, files: Iterable[str]) -> None:
    """Raise SpecError for a file that is neither in the folder nor, without a folder, on the Hub."""
    for file in files:
        within = file.startswith(HUB) if folder is None else Path(file).resolve().is_relative_to(folder)
        if not within:
            message = f"refers to a file outside it: {file}"
            raise SpecError.of("task.source", source, message, "Put the file into the folder.")


def _refuse_other_formats(source: str, folder: Path) -> None:
    """Raise SpecError for the first file that is not plain data, including hidden files."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.suffix.lower() in DATA_SUFFIXES or path.name == DESCRIPTION:
            continue
        message = f"contains a file that is not plain data: {path.relative_to(folder)}"
        remedy = f"Remove it from the folder, or convert it to one of {', '.join(sorted(DATA_SUFFIXES))}."
        raise SpecError.of("task.source", source, message, remedy)


def _texts_of(rows: "Dataset", column: str) -> list[str]:
    texts = rows[column][:]
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            message = f"contains {text!r} in row {row:,}, which is not text"
            raise SpecError.of("task.text_column", column, message, "Choose a column with text.")
    return texts


def _pictures_of(splits: Mapping[str, "Dataset"], column: str) -> Iterator[tuple[str, Image.Image]]:
    """The images of all splits with their places ("test row 3"). Raises SpecError for anything else."""
    import datasets

    for split, rows in splits.items():
        if isinstance(rows.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))  # opened by us, see `_opened`
        for row in range(len(rows)):
            place = f"{split} {row_of(row)}"
            try:
                picture = _opened(rows[row][column])
                if picture is not None:
                    require_reasonable(picture.size, place)
                    picture.load()
            except (OSError, Image.DecompressionBombError) as error:
                raise _no_picture(column, place) from error
            if picture is None:
                raise _no_picture(column, place)
            yield place, picture


def _opened(stored: object) -> Image.Image | None:
    """A stored image; one that is only a file name must be in the data folders or among the downloads."""
    if not isinstance(stored, Mapping):
        return None
    if stored.get("bytes") is not None:
        return Image.open(io.BytesIO(stored["bytes"]))
    name = str(stored.get("path") or "")
    downloads = (settings().home.absolute() / "cache" / "datasets").resolve()
    path = find_permitted(name) if name else None
    if path is None and name and Path(name).resolve().is_relative_to(downloads):
        path = Path(name).resolve()
    return None if path is None else Image.open(io.BytesIO(path.read_bytes()))


def _no_picture(column: str, place: str) -> SpecError:
    return SpecError.of("task.image_column", column, f"has no readable image in {place}", "Correct the data.")
