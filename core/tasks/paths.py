"""The files that a spec may use. Loads no torch.

On a server, those in the uploads and in the folders of SLIMBOARD_DATA; in the foreground, all that the user may read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from core.errors import SpecError
from core.settings import settings

_is_restricted: ContextVar[bool] = ContextVar("is_restricted", default=True)


@contextmanager
def permit_all() -> Iterator[None]:
    """Permit all files inside the context, for users who execute specs in their own process."""
    token = _is_restricted.set(False)
    try:
        yield
    finally:
        _is_restricted.reset(token)


def find_permitted(name: str) -> Path | None:
    """The file or folder of this name in one of the data folders, following symbolic links; None if there is none.

    A relative name is looked up in each folder in turn. Files outside all of them are treated as nonexistent. If all
    files are permitted, a name is first tried as a path: relative to the working directory, with "~" for the home.
    """
    if not _is_restricted.get() and (own := Path(name).expanduser()).exists():
        return own.resolve()
    for folder in settings().data_folders:
        root = folder.resolve()
        path = (root / name).resolve()
        if path.is_relative_to(root) and path != root and path.exists():
            return path
    return None


def get_permitted(field: str, source: str, name: str) -> Path:
    """The file or folder; raises SpecError, naming the setting for data folders, if it is missing or outside them."""
    path = find_permitted(name)
    if path is not None:
        return path
    if _is_restricted.get():
        message = "is not a file or folder in the server's data folders"
        remedy = "Upload it, or ask the server's administrator to list its folder in SLIMBOARD_DATA."
    else:
        message = "is not a file or folder"
        remedy = f"Check the path; relative paths start at {Path.cwd()} or at a folder in SLIMBOARD_DATA."
    raise SpecError.of(field, source, message, remedy)


def refuse_escapes(field: str, source: str, folder: Path, root: Path | None = None) -> None:
    """Raise SpecError if a symbolic link in the folder leads outside `root`, by default the folder itself.

    If all files are permitted, links may lead anywhere.
    """
    if not _is_restricted.get():
        return
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root or folder):
            name = str(path.relative_to(folder))
            message = f"has a symbolic link that leads outside it: {name}"
            raise SpecError.of(field, source, message, "Replace the link with the file.")
