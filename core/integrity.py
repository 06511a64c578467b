"""Verifies that the files of an artifact have not changed since they were written. Loads no torch.

`manifest.json` has the SHA-256 and the size of every file that was written with it, and a digest of itself. Per-example
results are added later, so `examples.safetensors` has a digest of its contents in its own metadata. Artifacts of
older releases without digests are only checked for missing and truncated files. Regressions
(`mistakes-*.json`) are not checked: each comparison writes them again.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

MANIFEST = "manifest.json"
EXAMPLES = "examples.safetensors"
REPORT = "report.json"
PACKED, WORKING, PROBE = "model.safetensors", "working.safetensors", "probe.safetensors"
FILES, DIGEST = "files", "sha256"  # of the manifest

Damage = Mapping[str, str]  # file -> what is wrong with it


class DamagedArtifact(Exception):
    """Files of an artifact are missing or have changed."""

    def __init__(self, key: str, damage: Damage):
        super().__init__("; ".join(f"{name} {what}" for name, what in sorted(damage.items())))
        self.key, self.damage = key, damage

    @property
    def is_lost(self) -> bool:
        """Whether the artifact itself is lost: per-example results alone can be computed again from its weights."""
        return set(self.damage) != {EXAMPLES}


def sealed(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The manifest with the size and the SHA-256 of every file in its folder, and of itself."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: {DIGEST: digest(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    content = {**manifest, FILES: digests}
    return {**content, DIGEST: _json_digest(content)}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is unchanged, by its digest of itself; older ones have none and pass."""
    content = {name: value for name, value in manifest.items() if name != DIGEST}
    return DIGEST not in manifest or manifest[DIGEST] == _json_digest(content)


def digest(file: Path) -> str:
    """SHA-256 of a file, read in chunks."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def seal_examples(write: Callable[[dict[str, str]], bytes]) -> bytes:
    """The bytes of a safetensors file with a digest of its contents in its metadata; `write` takes the metadata."""
    return write({DIGEST: _contents_digest(write({}))})


def find_damage(folder: Path, names: Iterable[str] | None = None) -> Damage:
    """Damage of an artifact's files, or of those in `names` only; empty if there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return {MANIFEST: "is missing"}
    except ValueError:
        return {MANIFEST: "is not JSON"}
    if not isinstance(manifest, dict):
        return {MANIFEST: "is not a manifest"}
    if not is_sealed(manifest):
        return {MANIFEST: "has changed since it was written"}
    chosen = None if names is None else set(names)
    told = manifest[FILES] if FILES in manifest else dict.fromkeys(_written_by_older_releases(folder, manifest))
    checked = {name: entry for name, entry in told.items() if chosen is None or name in chosen}
    damage = {name: _file_damage(folder / name, entry) for name, entry in checked.items()}
    if (folder / EXAMPLES).exists() and (chosen is None or EXAMPLES in chosen):
        damage[EXAMPLES] = _examples_damage(folder / EXAMPLES)
    return {name: what for name, what in damage.items() if what}


def _written_by_older_releases(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files that an artifact without digests must have."""
    required = [PACKED, PROBE] if manifest.get("packed") else []
    required += [WORKING] if manifest.get("working") else []
    found = [path.name for path in folder.iterdir() if path.name in (REPORT, PACKED, WORKING, PROBE)]
    return list(dict.fromkeys(required + found))


def _file_damage(file: Path, entry: Mapping[str, Any] | None) -> str:
    """Damage of a file, by its entry in the manifest or else by its form; empty if there is none."""
    if not file.is_file():
        return "is missing"
    n_bytes = file.stat().st_size
    if entry is None:
        return _form_damage(file)
    if n_bytes != entry["bytes"]:
        return f"has {n_bytes:,} bytes instead of {entry['bytes']:,}"
    return "" if digest(file) == entry[DIGEST] else "does not match its SHA-256 in the manifest"


def _form_damage(file: Path) -> str:
    if file.suffix == ".json":
        try:
            json.loads(file.read_bytes())
        except ValueError:
            return "is not JSON"
        return ""
    try:
        with safe_open(file, framework="np"):
            return ""
    except SafetensorError as error:
        return f"cannot be read ({error})"


def _examples_damage(file: Path) -> str:
    damage = _form_damage(file)
    if damage:
        return damage
    with safe_open(file, framework="np") as tensors:
        told = (tensors.metadata() or {}).get(DIGEST)
    changed = told is not None and told != _contents_digest(file.read_bytes())
    return "has changed since it was written" if changed else ""


def _contents_digest(data: bytes) -> str:
    """SHA-256 of the tensors in a safetensors file: names, dtypes, shapes and values, without its metadata."""
    (n_head,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + n_head])
    head.pop("__metadata__", None)
    contents = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    contents.update(data[8 + n_head :])
    return contents.hexdigest()


def _json_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
