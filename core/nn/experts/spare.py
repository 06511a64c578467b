"""Memory of a gradient that nothing refers to any more, kept for the next one.

The gradient of many experts is large, and an optimizer drops it after every update: a CPU's allocator then gives the
pages back, and asking for them again costs as much as some of the products. A GPU's allocator keeps them itself.
"""

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Spare:
    """The memory of the last gradient; copies of a model begin without.

    It is lent through an array that lives as long as any tensor has that memory.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None  # uint8
        self._lent: weakref.ref[np.ndarray[Any, Any]] | None = None

    def empty_like(self, weight: Tensor) -> Tensor:
        """A tensor of the weight's shape and type, in the same memory as the last one where that is free."""
        if weight.device.type != "cpu" or not weight.numel():
            return torch.empty_like(weight, memory_format=torch.contiguous_format)
        if self._memory is None or self._memory.numel() != weight.nbytes or self._is_lent():
            self._memory = torch.empty(weight.nbytes, dtype=torch.uint8)
        array = self._memory.numpy()
        self._lent = weakref.ref(array)
        storage = torch.from_numpy(array).untyped_storage()
        return weight.new_empty(0).set_(storage, 0, weight.shape, weight.stride())

    def _is_lent(self) -> bool:
        return self._lent is not None and self._lent() is not None

    def __deepcopy__(self, memo: object) -> "Spare":
        return Spare()

    def __getstate__(self) -> dict[str, object]:
        return {"_memory": None, "_lent": None}
