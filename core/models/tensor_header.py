"""The header of a safetensors file: names, dtypes, shapes and places of its tensors, without their values."""

import json
import math
import struct
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """The `dtype`, `shape` and `data_offsets` of each tensor by name.

    Raises ValueError for a file that is not a complete safetensors file.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} is not a safetensors file")
        try:
            entries = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{file.name} is not a safetensors file") from error
    tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
    expected = 8 + length + stored_bytes(tensors)
    if file.stat().st_size != expected:
        raise ValueError(
            f"{file.name} is incomplete: it has {file.stat().st_size} bytes, and its header says {expected}"
        )
    return tensors


def stored_bytes(tensors: dict[str, dict[str, Any]]) -> int:
    """Bytes of the tensors of one file; those that share their bytes count once."""
    return sum(end - begin for begin, end in {tuple(entry["data_offsets"]) for entry in tensors.values()})


def entry_count(entry: dict[str, Any]) -> int:
    """Number of entries of a tensor."""
    return math.prod(entry["shape"])
