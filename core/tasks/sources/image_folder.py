"""Pictures in class folders: cats/1.png, dogs/7.jpg; or the same below train, validation and test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import SpecError
from core.tasks.pictures import common_shape, pixels_of, require_reasonable

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MOST_PICTURES = 500_000
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises
SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Picture:
    """One file with its class and the split that its folder names."""

    path: Path
    label: str
    split: str  # "train" where the folders name none


def list_pictures(folder: Path) -> list[Picture]:
    """All pictures in a fixed order. Raises SpecError for files that are none, and for fewer than two classes."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    if {path.name.lower() for path in inside} <= SPLIT_FOLDERS.keys() and any(
        p.name.lower() == "train" for p in inside
    ):
        places = [(SPLIT_FOLDERS[top.name.lower()], below) for top in inside for below in sorted(top.iterdir())]
    else:
        places = [("train", path) for path in inside]
    pictures = [
        Picture(path, of_class.name, split)
        for split, of_class in places
        if of_class.is_dir()
        for path in sorted(of_class.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    _require_pictures(folder, pictures)
    return pictures


def _require_pictures(folder: Path, pictures: list[Picture]) -> None:
    if len({picture.label for picture in pictures}) < 2:
        message = "has no two folders with pictures in them"
        raise SpecError.of(
            "task.source", folder.name, message, "Put the pictures of each class into a folder of its name."
        )
    if len(pictures) > MOST_PICTURES:
        raise SpecError.of("task.source", folder.name, f"has more than {MOST_PICTURES:,} files", "Give a part of it.")
    for picture in pictures:
        if picture.path.suffix.lower() not in PICTURE_SUFFIXES:
            name = str(picture.path.relative_to(folder))
            raise SpecError.of("task.source", name, "is not a picture", "Remove it, or save it as PNG or JPEG.")


def read_pixels(folder: Path, pictures: list[Picture], image_size: int | None) -> np.ndarray:
    """The pictures at one size, uint8 [N, H, W, C]; raises SpecError that names a file that cannot be read."""
    headers = [_header(folder, picture.path) for picture in pictures]
    shape = common_shape([size for size, _ in headers], [mode for _, mode in headers], image_size)
    channels, height, width = shape
    pixels = np.empty((len(pictures), height, width, channels), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        try:
            with Image.open(picture.path) as image:
                pixels[i] = pixels_of(image, shape)
        except BROKEN as error:
            raise _damaged(folder, picture.path) from error
    return pixels


def check_pictures(folder: Path, pictures: list[Picture]) -> None:
    """Raise SpecError for a file that is no picture inside, without decoding its pixels."""
    for picture in pictures:
        _header(folder, picture.path)


def _header(folder: Path, path: Path) -> tuple[tuple[int, int], str]:
    """Size (width, height) and mode."""
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except BROKEN as error:
        raise _damaged(folder, path) from error
    require_reasonable(size, str(path.relative_to(folder)))
    return size, mode


def _damaged(folder: Path, path: Path) -> SpecError:
    name = str(path.relative_to(folder))
    return SpecError.of("task.source", name, "is damaged, huge or not a picture", "Replace or remove this file.")
