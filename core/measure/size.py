"""Size: the bytes of the tensors that an artifact stores."""

import json
import struct
from pathlib import Path

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


def tensor_payload(*files: Path) -> int:
    """Bytes of all tensors in safetensors files, headers left out; tied weights are stored, and counted, once.

    Reads only the headers. Raises ValueError for a file that is not a whole safetensors file.
    """
    return sum(_payload(file) for file in files)


def _payload(file: Path) -> int:
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} is not a safetensors file")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{file.name} is not a safetensors file") from error
    spans = {tuple(entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"}
    payload: int = sum(end - begin for begin, end in spans)
    if file.stat().st_size != 8 + length + payload:
        raise ValueError(
            f"{file.name} is cut short: {file.stat().st_size} bytes, its header tells of {8 + length + payload}"
        )
    return payload
