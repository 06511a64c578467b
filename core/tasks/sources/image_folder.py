"""Images in class folders: cats/1.png, dogs/7.jpg; or the same in train, validation and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import SpecError
from core.tasks.archive import is_litter
from core.tasks.pictures import Header, common_shape, header_of, pixels_of, value_range
from core.tasks.sources.split_folders import PICTURE_SUFFIXES, find_class_folders

MOST_PICTURES = 500_000
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises


@dataclass(frozen=True)
class Picture:
    """One file with its class and split."""

    path: Path
    name: str  # for people: below the folder that was read
    label: str
    split: str  # "train" where the folders name none


def list_pictures(folder: Path) -> list[Picture]:
    """All images in a fixed order. Raises SpecError for other files, and for fewer than two classes."""
    pictures = [
        Picture(path, str(path.relative_to(folder)), of_class.name, split)
        for split, of_class in find_class_folders(folder)
        for path in sorted(of_class.rglob("*"))
        if path.is_file() and not is_litter(path.name)
    ]
    _require_pictures(folder, pictures)
    return pictures


def _require_pictures(folder: Path, pictures: list[Picture]) -> None:
    if len({picture.label for picture in pictures}) < 2:
        message = "does not have at least two folders with images"
        raise SpecError.of(
            "task.source", folder.name, message, "Put the images of each class into a folder with the class's name."
        )
    if len(pictures) > MOST_PICTURES:
        raise SpecError.of("task.source", folder.name, f"has more than {MOST_PICTURES:,} files", "Use a part of it.")
    for picture in pictures:
        if picture.path.suffix.lower() not in PICTURE_SUFFIXES:
            raise SpecError.of("task.source", picture.name, "is not an image", "Remove it, or save it as PNG or JPEG.")


def read_pixels(pictures: Sequence[Picture], image_size: int | None) -> tuple[np.ndarray, list[str]]:
    """The images at one size, uint8 [N, H, W, C], and warnings; SpecError names a file that cannot be read."""
    headers = [_header(picture) for picture in pictures]
    shape, values = common_shape(headers, image_size), value_range(headers)
    channels, height, width = shape
    pixels = np.empty((len(pictures), height, width, channels), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        try:
            with Image.open(picture.path) as image:
                pixels[i] = pixels_of(image, shape, values)
        except BROKEN as error:
            raise _damaged(picture) from error
    return pixels, values.warnings(headers)


def check_pictures(pictures: Sequence[Picture]) -> None:
    """Raise SpecError for a file that is not an image; only those with more than 8 bits are decoded."""
    value_range([_header(picture) for picture in pictures])


def _header(picture: Picture) -> Header:
    try:
        with Image.open(picture.path) as image:
            return header_of(image, picture.name)
    except SpecError:
        raise
    except BROKEN as error:
        raise _damaged(picture) from error


def _damaged(picture: Picture) -> SpecError:
    message = "is damaged, too large or not an image"
    return SpecError.of("task.source", picture.name, message, "Replace or remove this file.")
