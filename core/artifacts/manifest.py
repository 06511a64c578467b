"""The manifest of an artifact: what its files hold, and the modules that were swapped into its models."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from core.integrity import DIGEST, FILES, MANIFEST, sealed

FORMAT = 2  # 1 had no digests
READ_FORMATS = (1, FORMAT)


@dataclass(frozen=True)
class Module:
    """A replacement module: its place, class and constructor arguments, and other places where the same one is."""

    name: str
    cls: str
    arguments: dict[str, Any]
    shared: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WeightForm:
    """One saved form of the models: the replacement modules of each, and the tensors whose shapes shrank."""

    replacements: dict[str, list[Module]] = field(default_factory=dict)
    shapes: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # model -> tensor -> shape


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`."""

    configs: dict[str, dict[str, Any]]
    packed: WeightForm
    working: WeightForm | None
    trained: bool
    compressed: bool
    input_format: dict[str, Any]
    class_names: list[str] = field(default_factory=list)  # of a classifier's outputs, in their order
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest in a folder; raises ValueError for a format that this release does not know."""
        data = json.loads((folder / MANIFEST).read_text())
        if data["format"] not in READ_FORMATS:
            known = " and ".join(map(str, READ_FORMATS))
            raise ValueError(f"{folder.name} has artifact format {data['format']}; this release reads {known}")
        told = {key: value for key, value in data.items() if key not in (FILES, DIGEST)}
        forms = {key: _form(data[key]) for key in ("packed", "working")}
        return cls(**{**told, **forms})

    def write(self, folder: Path) -> str:
        """Write it with the digests of all other files in the folder, and return its SHA-256."""
        (folder / MANIFEST).write_text(json.dumps(sealed(asdict(self), folder), indent=1))
        return manifest_digest(folder)


def manifest_digest(folder: Path) -> str:
    """SHA-256 of the manifest in a folder."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def _form(data: dict[str, Any] | None) -> WeightForm | None:
    if data is None:
        return None
    modules = {name: [Module(**module) for module in listed] for name, listed in data["replacements"].items()}
    return WeightForm(modules, data.get("shapes", {}))
