"""Which of the machine's files a spec may name. Loads no torch.

On a server those in the uploads and in the folders of SLIMBOARD_DATA; in the foreground all that its user may read.
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
    """Let specs name every file while this lasts: for a user who runs them in a process of their own."""
    token = _is_restricted.set(False)
    try:
        yield
    finally:
        _is_restricted.reset(token)


def find_permitted(name: str) -> Path | None:
    """The file or folder of this name in one of the data folders, symbolic links followed; None where there is none.

    A relative name is looked up in each folder in turn. What lies outside of all of them is as if it did not exist.
    Where all files are permitted, a name is a path first: relative to the working directory, "~" is the home.
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
    """The file or folder; raises SpecError, naming the folders' setting, where it is missing or lies elsewhere."""
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
    """Raise SpecError where a symbolic link in the folder leads out of `root`, the folder itself by default.

    Links of one's own lead where they may where all files are permitted.
    """
    if not _is_restricted.get():
        return
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root or folder):
            name = str(path.relative_to(folder))
            message = f"has a symbolic link that leads outside it: {name}"
            raise SpecError.of(field, source, message, "Replace the link with the file.")
