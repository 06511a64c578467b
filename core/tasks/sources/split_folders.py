"""Determines which image folders are splits (train, dev, test …) and which are classes. Loads no torch."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import SpecError
from core.tasks.archive import is_litter

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
UNLABELLED_WORDS = frozenset({"unsup", "unsupervised", "unlabelled", "unlabeled"})
_ENDINGS = re.compile(r"(?<=.)(sets?|data|images?|imgs?|splits?|folder)$")


def find_class_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each class folder with its split: "train" if there are no split folders.

    Raises SpecError if split folders and class folders are mixed, if a split has two folders or is empty, and
    for images next to the class folders.
    """
    _require_no_loose(folder, folder)
    top = _folders(folder)
    split_of = {path: _split_word(path.name) for path in top}
    if not any(split_of.values()) and not any(map(_is_unlabelled, top)):
        for path in top:
            _require_no_splits(folder, path)
            yield "train", path
        return
    _require_only_splits(folder, top, split_of)
    for path, split in split_of.items():
        _require_no_loose(folder, path)
        classes = _folders(path)
        if not classes:
            remedy = "Put the images of each class into a folder with the class's name there, or remove this folder."
            raise SpecError.of("task.source", path.name, "is a split without class folders", remedy)
        _require_only_classes(folder, classes)
        for each in classes:
            _require_no_splits(folder, each)
            yield str(split), each


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _split_word(name: str) -> str | None:
    """The split in a folder's name, in any case and with any affixes: "Test_Set", "val2017"."""
    letters = re.sub(r"[\W_]+|(19|20)\d\d", "", name.casefold())
    return SPLIT_WORDS.get(letters) or SPLIT_WORDS.get(_ENDINGS.sub("", letters))


def _is_unlabelled(path: Path) -> bool:
    return path.name.casefold() in UNLABELLED_WORDS


def _require_only_splits(folder: Path, top: Sequence[Path], split_of: dict[Path, str | None]) -> None:
    others = [path.name for path in top if split_of[path] is None]
    if others:
        named = [path.name for path in top if split_of[path] is not None] or ["no split"]
        message = f"mixes split folders ({', '.join(named)}) with others ({', '.join(others[:6])})"
        remedy = "Keep only train, validation and test there. If all are classes, move them into a train folder."
        raise SpecError.of("task.source", folder.name, message, remedy)
    for split in ("train", "validation", "test"):
        paths = [path.name for path in top if split_of[path] == split]
        if len(paths) > 1:
            message = f"has several folders for the {split} split: {', '.join(paths)}"
            raise SpecError.of("task.source", folder.name, message, "Keep one of them, or merge them.")
        if split == "train" and not paths:
            message = f"has no train folder next to {', '.join(path.name for path in top)}"
            raise SpecError.of("task.source", folder.name, message, "Add a train folder with the training images.")


def _require_only_classes(folder: Path, classes: Sequence[Path]) -> None:
    """Raise SpecError for a split inside a split; "train" may be a class there, as in CIFAR-100."""
    for path in classes:
        if _is_unlabelled(path) or (_split_word(path.name) and path.name.casefold() != "train"):
            name = str(path.relative_to(folder))
            remedy = "Move it out of this folder; a class must not have the name of a split."
            raise SpecError.of("task.source", name, "is among the class folders and has the name of a split", remedy)


def _require_no_splits(folder: Path, of_class: Path) -> None:
    """Raise SpecError for splits inside a class folder, which would be read as one class."""
    found = next((path for path in _folders(of_class) if _split_word(path.name) or _is_unlabelled(path)), None)
    if found is not None:
        message = f"is a split folder inside the class folder {of_class.name}"
        remedy = f"Put the split folders at the top level: {found.name}/{of_class.name}."
        raise SpecError.of("task.source", str(found.relative_to(folder)), message, remedy)


def _require_no_loose(folder: Path, place: Path) -> None:
    loose = [path for path in sorted(place.iterdir()) if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()]
    loose = [path for path in loose if not is_litter(path.name)]
    if loose:
        message = f"is one of {len(loose):,} images outside any class folder"
        remedy = "Put each image into the folder of its class, or remove it."
        raise SpecError.of("task.source", str(loose[0].relative_to(folder)), message, remedy)
