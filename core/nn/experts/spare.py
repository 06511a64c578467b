"""Memory of a gradient that nothing refers to any more, kept for the next one.

The gradient of many experts is large, and an optimizer drops it after every update: a CPU's allocator then gives the
pages back, and asking for them again costs as much as some of the products. A GPU's allocator keeps them itself.
"""

import torch
from torch import Tensor


class Spare:
    """The memory of the last gradient; copies of a model begin without."""

    def __init__(self) -> None:
        self._storage: torch.UntypedStorage | None = None

    def empty_like(self, weight: Tensor) -> Tensor:
        """A tensor of the weight's shape and type, in the same memory as the last one where that is free."""
        storage = self._storage
        if storage is not None and storage.nbytes() == weight.nbytes and _is_free(storage):
            return weight.new_empty(0).set_(storage, 0, weight.shape, weight.stride())
        made = torch.empty_like(weight, memory_format=torch.contiguous_format)
        self._storage = made.untyped_storage() if weight.device.type == "cpu" else None
        return made

    def __deepcopy__(self, memo: object) -> "Spare":
        return Spare()

    def __getstate__(self) -> dict[str, object]:
        return {"_storage": None}


def _is_free(storage: torch.UntypedStorage) -> bool:
    """Whether no tensor has this storage, only the caller's object."""
    return bool(torch._C._storage_Use_Count(storage._cdata) == 1)
