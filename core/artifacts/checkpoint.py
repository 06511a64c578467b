"""Nested state of tensors and plain values in one safetensors file: no pickle, and never incomplete."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core import disk

_TENSOR = "__tensor__"
_INTEGER_KEYS = "__integer_keys__"


def save_state(path: Path, state: Any) -> None:
    """Write nested dicts and lists of tensors and JSON values; the old file is kept until the new one is complete.

    Raises DiskFull.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_flatten(state, tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.replacing(path) as partial:
        save_file(tensors, partial, metadata={"tree": tree})


def load_state(path: Path, device: str = "cpu") -> Any:
    """Read what `save_state` wrote."""
    with safe_open(path, framework="pt", device=device) as file:
        return _restore(json.loads(file.metadata()["tree"]), file)


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()  # safetensors refuses shared storage
        return {_TENSOR: name}
    if isinstance(value, dict):
        items = {str(key): _flatten(item, tensors) for key, item in value.items()}
        return {_INTEGER_KEYS: items} if value and all(isinstance(key, int) for key in value) else items
    if isinstance(value, (list, tuple)):
        return [_flatten(item, tensors) for item in value]
    return value


def _restore(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item, file) for item in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            return file.get_tensor(value[_TENSOR])
        if _INTEGER_KEYS in value:
            return {int(key): _restore(item, file) for key, item in value[_INTEGER_KEYS].items()}
        return {key: _restore(item, file) for key, item in value.items()}
    return value
