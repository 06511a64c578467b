"""What a module is called with on the calibration data, to run it again with other weights."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only


class Calls:
    """A module's arguments in each call, kept in the host's memory, and which of its tokens are not padding."""

    def __init__(self, module: nn.Module):
        self._module = module
        self._calls: list[tuple[Any, dict[str, Any], Tensor | None]] = []
        self._device = torch.device("cpu")

    def recorder(self, masks: list[Tensor | None]) -> Callable[..., None]:
        """A forward pre-hook that keeps each call; `masks` has the current batch's attention mask [B, T], or None."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            self._device = tensors[0].device
            kept = tree_map_only(Tensor, lambda t: t.detach().to("cpu", copy=True), (args, kwargs))
            self._calls.append((*kept, masks[0]))

        return hook

    def __len__(self) -> int:
        return len(self._calls)

    @torch.no_grad()
    def outputs(self) -> Iterator[Tensor]:
        """The module's output as it is now in each call, float32 or wider [n, d], padding left out."""
        for *called, mask in self._calls:
            args, kwargs = tree_map_only(Tensor, lambda t: t.to(self._device, copy=True), called)
            output = self._module(*args, **kwargs)
            output = output[0] if isinstance(output, tuple) else output
            rows = output.reshape(1, -1, output.shape[-1])
            rows = rows if mask is None or output.dim() < 3 else unpadded(rows, mask)
            yield rows[0].to(torch.promote_types(rows.dtype, torch.float32))


def unpadded(rows: Tensor, attention_mask: Tensor) -> Tensor:
    """Of vectors [1, B * T', d] those at tokens that are not padding: see `find_unpadded`."""
    kept = find_unpadded(rows.shape[1], attention_mask)
    return rows if kept is None else rows[:, kept]


def find_unpadded(n_vectors: int, attention_mask: Tensor) -> Tensor | None:
    """Which of B * T' vectors, bool, are at tokens that attention_mask [B, T], or [B / 2, 2, T], is not 0 at.

    T' may be more than T: tokens that the model itself put first. Where the vectors are not those of tokens (a pooled
    one an example), None: all count.
    """
    attention_mask = attention_mask.flatten(0, -2)  # a pair's texts are two
    n_examples, length = attention_mask.shape
    added = n_vectors // n_examples - length
    if added < 0 or n_vectors % n_examples:
        return None
    return F.pad(attention_mask.bool(), (added, 0), value=True).flatten()
