"""Finds a Hugging Face checkpoint's files in the user's folders or on the Hub, safetensors only.

A server uses only folders inside those in `SLIMBOARD_DATA` (and the uploads), see `core.tasks.paths`.
Nothing that can run code is loaded: no pickle, no Python code of a repository.
"""

import hashlib
import json
import re
from pathlib import Path

from core.errors import SpecError
from core.tasks.paths import find_permitted, refuse_escapes

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SMALL = ["*.json", "*.txt", "*.model", "*.jinja"]
_LARGE = [WEIGHTS, "model-*.safetensors"]
_REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def locate(source: str, revision: str | None, *, weights: bool) -> Path:
    """The folder with the files of `hf:<repo or folder>`, downloaded if need be; only small ones without `weights`.

    Raises SpecError for a source that is missing, not permitted, gated or unreachable.
    """
    name = source.removeprefix("hf:")
    folder = _own_folder(name)
    if folder is not None:
        refuse_escapes("model.source", source, folder)
    elif not _REPOSITORY.fullmatch(name):
        raise SpecError.of(
            "model.source",
            source,
            "is neither a folder in the server's data folders nor the name of a repository",
            "Write hf:<owner>/<name>, or ask the server's administrator to list the parent folder in SLIMBOARD_DATA.",
        )
    else:
        folder = _download(source, name, revision, _SMALL + _LARGE if weights else _SMALL)
        cache = folder.parents[1]  # whose snapshots link to files beside them
        refuse_escapes("model.source", source, folder, cache)
    if not (folder / "config.json").is_file():
        raise SpecError.of("model.source", source, "has no config.json", "Choose a model saved by save_pretrained.")
    return folder


def check_weights(source: str) -> None:
    """Raise SpecError if a user's own folder has no readable weights; for a repository, only loading finds out."""
    folder = _own_folder(source.removeprefix("hf:"))
    if folder is not None:
        weight_files(source, folder)


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights in safetensors; of a repository's small files alone it has none."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def weight_files(source: str, folder: Path) -> list[Path]:
    """The safetensors files that make up the model; raises SpecError if there are none, listing the files found."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing:
            message = f"lacks {', '.join(missing)}, listed in its index"
            raise SpecError.of("model.source", source, message, "Add the missing files, or save the model again.")
        return [folder / name for name in names]
    unsafe = sorted(file.name for file in folder.iterdir() if file.suffix in UNSAFE)
    found = f", only {', '.join(unsafe)}, a format that can run code when it is loaded" if unsafe else ""
    raise SpecError.of(
        "model.source",
        source,
        f"has no {WEIGHTS}{found}",
        "Convert it with save_pretrained if you trust it, or choose a repository with safetensors files.",
    )


def content_hash(config: dict[str, object], files: list[Path]) -> str:
    """SHA-256 of a config and of the contents of its weight files, read a piece at a time."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _own_folder(name: str) -> Path | None:
    folder = find_permitted(name)
    return folder if folder is not None and folder.is_dir() else None


def _download(source: str, name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        remedy = "Request access on its page, and set HF_TOKEN on the worker to a token of the account that has it."
        raise SpecError.of("model.source", source, "is gated", remedy) from error
    except RepositoryNotFoundError as error:
        remedy = "Check the spelling. For a private repository, set HF_TOKEN on the worker to a token with read access."
        raise SpecError.of("model.source", source, "is not on the Hugging Face Hub", remedy) from error
    except RevisionNotFoundError as error:
        remedy = "Choose an existing branch, tag or commit."
        raise SpecError.of("model.revision", revision, f"is not a revision of {name}", remedy) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, ConnectionError) as error:
        remedy = "Connect the worker to the internet, or put the model into a folder listed in SLIMBOARD_DATA."
        message = "is not on this worker, and the worker cannot reach the Hugging Face Hub"
        raise SpecError.of("model.source", source, message, remedy) from error
