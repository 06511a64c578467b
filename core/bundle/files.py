"""The files of an artifact that go into a bundle, with their names and size limits.

Documents for pages are compressed JSON of bounded size. Everything else is stored uncompressed, so a bundle cannot
unpack to more than its own size.
"""

import re
from pathlib import Path, PurePosixPath

from core.bundle.contents import CURVES, KEY, LOG, RUN, STAGES
from core.bundle.errors import BundleError
from core.integrity import MANIFEST

DOCUMENTS = (RUN, STAGES, CURVES, LOG)
MOST_JSON_BYTES = 256 << 20  # of one file
MOST_JSON_TOTAL = 1 << 30
MOST_FILES = 20_000
_KEY = KEY.strip("^$")
_SHOWN = re.compile(rf"manifest\.json|report\.json|examples\.safetensors|mistakes-{_KEY}\.json")
_WEIGHTS = re.compile(r"(model|working|probe)\.safetensors|tokenizer/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_IN_BUNDLE = re.compile(rf"artifacts/(?P<key>{_KEY})/(?P<file>.+)")


def list_files(folder: Path, *, weights: bool) -> list[Path]:
    """The files of an artifact's folder to bundle, by name; optionally with weights."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [f for f in files if is_shown(name := f.relative_to(folder).as_posix()) or (weights and is_weights(name))]


def is_shown(name: str) -> bool:
    """Whether pages read this file of an artifact."""
    return _SHOWN.fullmatch(name) is not None


def is_weights(name: str) -> bool:
    """Whether the file is needed to build the model again."""
    return _WEIGHTS.fullmatch(name) is not None


def bundled_name(key: str, name: str) -> str:
    """The name of an artifact's file in the zip."""
    return f"artifacts/{key}/{name}"


def split_name(name: str) -> tuple[str, str] | None:
    """Key and file of a name in the zip, None for a document; raises BundleError for other names."""
    if name in (MANIFEST, *DOCUMENTS):
        return None
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or ":" in name:
        raise BundleError(f"the file {name!r} is outside the bundle")
    found = _IN_BUNDLE.fullmatch(name)
    if found is None or not (is_shown(found["file"]) or is_weights(found["file"])):
        raise BundleError(f"the file {name!r} is not a known file of a bundle")
    return found["key"], found["file"]


def is_compressed(name: str) -> bool:
    """Whether the file of this name in the zip is compressed."""
    return name.endswith(".json") and "/tokenizer/" not in name
