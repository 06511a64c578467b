"""Size: the bytes of the tensors that an artifact stores."""

from pathlib import Path

from core.models.tensor_header import read_header, stored_bytes


def tensor_payload(*files: Path) -> int:
    """Bytes of all tensors in safetensors files without headers; tied weights are stored and counted once.

    Reads only the headers. Raises ValueError for a file that is not a complete safetensors file.
    """
    return sum(stored_bytes(read_header(file)) for file in files)
