"""Which of the machine's files a spec may name: those in the uploads and in SLIMBOARD_DATA. Loads no torch."""

from pathlib import Path

from core.errors import SpecError
from core.settings import settings


def find_permitted(name: str) -> Path | None:
    """The file or folder of this name in one of the data folders, symbolic links followed; None where there is none.

    A relative name is looked up in each folder in turn. What lies outside of all of them is as if it did not exist.
    """
    for folder in settings().data_folders:
        root = folder.resolve()
        path = (root / name).resolve()
        if path.is_relative_to(root) and path != root and path.exists():
            return path
    return None


def get_permitted(field: str, source: str, name: str) -> Path:
    """The file or folder; raises SpecError, naming the folders' setting, where it is missing or lies elsewhere."""
    path = find_permitted(name)
    if path is None:
        raise SpecError.of(
            field,
            source,
            "is not a file or folder in the data folders of this server",
            "Upload it, or ask whoever runs the server to list its folder in SLIMBOARD_DATA.",
        )
    return path


def refuse_escapes(field: str, source: str, folder: Path) -> None:
    """Raise SpecError where a symbolic link in the folder leads out of it."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder):
            name = str(path.relative_to(folder))
            message = f"has a symbolic link that leads out of it: {name}"
            raise SpecError.of(field, source, message, "Put the file itself there.")
