"""Running text in one file."""

from pathlib import Path

from core.errors import SpecError

LARGEST_TEXT = 128 * 2**20  # bytes


def read_text(path: Path) -> str:
    """The file's text; raises SpecError if it is not UTF-8, is empty or is too large."""
    n_bytes = path.stat().st_size
    if n_bytes > LARGEST_TEXT:
        message = f"has {n_bytes / 2**20:,.0f} MiB"
        raise SpecError.of("task.source", path.name, message, f"Use at most {LARGEST_TEXT // 2**20} MiB of text.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not text in UTF-8: byte {error.start:,} cannot be read"
        raise SpecError.of("task.source", path.name, message, "Save it as UTF-8.") from error
    if not text.strip():
        raise SpecError.of("task.source", path.name, "is empty", "Choose a file that contains text.")
    return text.replace("\r\n", "\n")
