"""Uploads: validated, unpacked and stored in the home folder by the hash of their content. Loads no torch.

Uploads are not trusted: names are sanitized, archives cannot write outside their folder or unpack
without limit, and formats that can run code when loaded are rejected.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open

from core.errors import SpecError
from core.settings import settings
from core.tasks.archive import copy_at_most, unpack
from core.tasks.data import DATA_SPLITS
from core.tasks.sources.image_folder import check_pictures, list_pictures
from core.tasks.sources.split_folders import SPLIT_WORDS
from core.tasks.sources.table import TABLE_SUFFIXES, read_table
from core.tasks.sources.text_file import read_text

RUNS_CODE = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".py", ".h5", ".keras"})
_NAMING = "Name the files train, validation and test, or choose a single file."
MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja", ".md"})


def save_upload(name: str, stream: BinaryIO, home: Path) -> str:
    """Store a text, a CSV or JSON Lines table, or a zip of class folders with images; returns the task's source.

    Raises SpecError for files that are too large, damaged or of another kind.
    """
    with _incoming(home) as incoming:
        received = content = _receive(name, stream, incoming / "received")
        if received.suffix.lower() == ".zip":
            content = unpack(received, incoming / "unpacked" / received.stem)
            check_pictures(list_pictures(content))
        elif received.suffix.lower() in TABLE_SUFFIXES:
            read_table(content)
        else:
            read_text(content)
        return f"file:{_keep(incoming, content, _digest([received]), home)}"


def save_data_uploads(files: Sequence[tuple[str, BinaryIO]], home: Path) -> dict[str, str]:
    """Store one file, or several named like splits (train.csv, dev.csv, test.csv); returns the task's settings.

    Raises SpecError if names do not identify the splits.
    """
    if len(files) == 1:
        return {"source": save_upload(*files[0], home)}
    named = [(_split_in(name), name, stream) for name, stream in files]
    for split in DATA_SPLITS:
        found = [name for word, name, _ in named if word == split]
        if len(found) > 1:
            raise SpecError.of("upload", ", ".join(found), f"are all named like the {split} split", _NAMING)
        if split == "train" and not found:
            names = ", ".join(name for _, name, _ in named)
            raise SpecError.of("upload", names, "have no training file among them", _NAMING)
    saved = {split: save_upload(name, stream, home) for split, name, stream in named}
    return {("source" if split == "train" else f"{split}_file"): source for split, source in saved.items()}


def _split_in(name: str) -> str:
    """The split in a file's name: "reviews_dev.csv" is for validation."""
    words = re.split(r"[\W_]+", Path(name).stem.casefold())
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if len(splits) != 1:
        raise SpecError.of("upload", name, "is not named like a split, and there are several files", _NAMING)
    return splits.pop()


def save_model_upload(files: Sequence[tuple[str, BinaryIO]], home: Path) -> str:
    """Store a model's files (or one zip of them), as written by `save_pretrained`; returns the model's source.

    Raises SpecError for formats that can run code, damaged weights, and a folder without config or weights.
    """
    with _incoming(home) as incoming:
        content = incoming / "model"
        received = [_receive(name, stream, content) for name, stream in files]
        if len(received) == 1 and received[0].suffix.lower() == ".zip":
            content = unpack(received[0], incoming / "unpacked" / received[0].stem)
        _require_model(content)
        return f"hf:{_keep(incoming, content, _digest(received), home)}"


@contextmanager
def _incoming(home: Path) -> Iterator[Path]:
    """A temporary folder on the same file system as the uploads."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incoming-", dir=home) as folder:
        yield Path(folder)


def _receive(name: str, stream: BinaryIO, folder: Path) -> Path:
    """Write the stream to a file with a harmless name."""
    path = folder / (re.sub(r"[^\w.-]+", "_", Path(name.replace("\\", "/")).name).lstrip(".") or "data")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        copy_at_most(settings().upload_mb * 10**6, stream, file, name)
    return path


def _digest(files: Sequence[Path]) -> str:
    """Hash of names and contents, independent of the files' order."""
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _require_model(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        if path.suffix.lower() in RUNS_CODE:
            message = "has a format that can run code when it is loaded"
            raise SpecError.of(
                "upload", path.name, message, "Save the model as safetensors, and do not upload this file."
            )
        if path.suffix.lower() not in MODEL_SUFFIXES or path.parent != folder:
            message = "is not a file that save_pretrained writes"
            raise SpecError.of("upload", str(path.relative_to(folder)), message, "Do not upload it.")
    weights = [path for path in files if path.suffix.lower() == ".safetensors"]
    if not weights or not (folder / "config.json").is_file():
        missing = "config.json" if weights else "a .safetensors file"
        raise SpecError.of("upload", folder.name, f"has no {missing}", "Upload all files that save_pretrained wrote.")
    for path in weights:
        try:
            with safe_open(path, framework="np") as tensors:
                tensors.keys()
        except SafetensorError as error:
            raise SpecError.of("upload", path.name, f"is damaged: {error}", "Save and upload it again.") from error


def _keep(incoming: Path, content: Path, digest: str, home: Path) -> str:
    """Move received files to their place; returns the path in the uploads."""
    uploads = home.absolute() / "uploads"
    uploads.mkdir(exist_ok=True)
    place = incoming / digest
    place.mkdir()
    content.rename(place / content.name)
    try:
        place.rename(uploads / digest)
    except OSError:  # it was sent before
        if not (uploads / digest / content.name).exists():
            raise
    return f"{digest}/{content.name}"
