"""The dtype and size of a checkpoint's weights, from the headers of its safetensors files."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from core.errors import SpecError
from core.models.checkpoint import has_weights, weight_files
from core.models.tensor_header import entry_count, read_header, stored_bytes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DtypeSetting = Literal["auto", "float32", "bfloat16", "float16"]
_NAMES = {"F32": "float32", "F64": "float32", "BF16": "bfloat16", "F16": "float16"}  # of safetensors -> of torch
_NARROW = ("F8", "F4", "F6")


@dataclass(frozen=True)
class StoredWeights:
    """The parts of a checkpoint's files that the model uses."""

    dtype: str  # "float32", "bfloat16" or "float16": that of most weights; float64 counts as float32
    bytes: int  # of the tensors, headers left out


def resolve_dtype(source: str, folder: Path, setting: str) -> str:
    """The dtype for loading a checkpoint: the setting, or the checkpoint's own for "auto".

    For a repository whose weights are not downloaded yet, the config's dtype is used.
    """
    if setting != "auto":
        return setting
    if has_weights(folder):
        return stored_weights(source, folder).dtype
    config = json.loads((folder / "config.json").read_text())
    name = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return name if name in DTYPES else "float32"


def stored_weights(source: str, folder: Path, unused: Collection[str] = ()) -> StoredWeights:
    """Dtype and bytes of a checkpoint's tensors, less the `unused` ones.

    Raises SpecError for a damaged file, and for weights in a floating-point format of fewer than 16 bits.
    """
    n_bytes, weights = 0, Counter[str]()
    for file in weight_files(source, folder):
        tensors = {name: entry for name, entry in _header(source, file).items() if name not in unused}
        n_bytes += stored_bytes(tensors)
        for entry in tensors.values():
            weights[entry["dtype"]] += entry_count(entry)
    narrow = sorted(name for name in weights if name.startswith(_NARROW))
    if narrow:
        remedy = "Choose a checkpoint in float32, bfloat16 or float16: Slimboard quantizes it itself."
        raise SpecError.of("model.source", source, f"has weights in {', '.join(narrow)}", remedy)
    floating = {name: count for name, count in weights.items() if name in _NAMES}
    return StoredWeights(_NAMES[max(floating, key=floating.__getitem__)] if floating else "float32", n_bytes)


def _header(source: str, file: Path) -> dict[str, dict[str, Any]]:
    try:
        return read_header(file)
    except ValueError as error:
        raise SpecError.of("model.source", source, f"is damaged: {error}", "Copy or download it again.") from error
