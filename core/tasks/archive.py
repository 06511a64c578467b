"""Unpacking a user's zip safely. Loads no torch."""

import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from core.errors import SpecError

MOST_FILES = 500_000
MOST_UNPACKED = 8 * 2**30  # bytes
CHUNK = 2**20  # bytes read at once
BROKEN = (  # what `zipfile` raises for archives that are damaged, encrypted, or hold one name twice
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip into `folder`; returns the first folder from there down with more than one entry.

    Raises SpecError for a broken archive, and for one that writes outside its folder or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            _write_entries(archive, packed, folder)
    except BROKEN as error:
        raise _bad_archive(archive, f"cannot be unpacked: {error}", "Create an ordinary zip file.") from error
    if not folder.is_dir():
        raise _bad_archive(archive, "is empty", "Upload an archive with files.")
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _write_entries(archive: Path, packed: zipfile.ZipFile, folder: Path) -> None:
    entries = [entry for entry in packed.infolist() if not entry.is_dir() and not is_litter(entry.filename)]
    if len(entries) > MOST_FILES:
        raise _bad_archive(archive, f"has more than {MOST_FILES:,} files", "Send fewer.")
    left = MOST_UNPACKED
    for entry in entries:
        target = folder / _inside(archive, entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        with packed.open(entry) as stream, target.open("xb") as file:
            left -= copy_at_most(left, stream, file, entry.filename)


def is_litter(name: str) -> bool:
    """Whether a file is one that operating systems leave in folders and archives."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != ".."]
    is_hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return is_hidden or parts[-1].lower() in ("thumbs.db", "desktop.ini")


def _inside(archive: Path, entry: zipfile.ZipInfo) -> PurePosixPath:
    """The entry's path in the folder that it is unpacked to."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", entry.filename):
        raise _bad_archive(
            archive, f"has a file outside its folder: {entry.filename}", "Create it with relative paths."
        )
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _bad_archive(archive, f"has a symbolic link: {entry.filename}", "Add the file itself.")
    return path


def _bad_archive(archive: Path, message: str, remedy: str) -> SpecError:
    return SpecError.of("upload", archive.name, message, remedy)


def copy_at_most(most: int, stream: IO[bytes], file: IO[bytes], name: str) -> int:
    """Copy to the end, but at most `most` bytes; returns their number."""
    n_bytes = 0
    while chunk := stream.read(CHUNK):
        n_bytes += len(chunk)
        if n_bytes > most:
            message = f"is larger than {most / 10**6:,.0f} MB"
            raise SpecError.of(
                "upload", name, message, "Upload less, or ask the server's administrator to raise SLIMBOARD_UPLOAD_MB."
            )
        file.write(chunk)
    return n_bytes
