"""What a module must offer to be swapped into a model, saved, loaded, counted and timed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn


@dataclass(frozen=True)
class WeightCount:
    """What a module's weights amount to, as mathematics (not as bytes)."""

    weights: int  # entries of the matrices it stands for, zeros included
    nonzeros: int
    bits: float  # nominal bits a stored weight, scales left out


class Replacement(nn.Module):
    """Base of every module that techniques swap in; listed in `core/nn/catalogue.py`.

    The constructor takes only JSON values (`arguments` gives them back) and creates parameters and
    buffers of the final shapes and dtypes, also on the meta device: the artifact's manifest names the class and
    its arguments, and the tensors are loaded strictly. `forward` always works, on every device, if
    need be by unpacking; `kernel` tells whether something faster than unpacking runs it.
    """

    no_onnx: ClassVar[str | None] = None  # why a graph that is traced once cannot hold it
    holds_tables: ClassVar[bool] = False  # True: the modules inside are looked up in, and never multiply
    limits_length: ClassVar[bool] = False  # True: made for the model's longest text, and refuses longer ones

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that construct an equal module, without its tensors."""
        raise NotImplementedError(type(self).__name__)

    def adopt(self, original: nn.Module) -> None:
        """Take over parts of the module whose place this one takes, before any of its tensors is loaded."""

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Name of the kernel that executes the packed form here; None: it must be unpacked (size only).

        Modules whose form needs no special kernel (low rank, attention) name the plain one: "dense".
        """
        raise NotImplementedError(type(self).__name__)

    def prepare(self) -> None:
        """Lay the weights out for the kernel, once, after loading or moving; nothing of it is saved."""

    def count(self) -> WeightCount | None:
        """What its own weights amount to; None: the ordinary parameters inside tell (attention, low rank)."""
        return None

    def macs(self, shape: torch.Size) -> int | None:
        """Multiply-accumulates that its kernel executes on an input of this shape.

        None: every entry of `count().weights` meets every row (the last axis is the features), or, where
        `count` is None too, what `forward` is seen to execute.
        """
        return None

    def dense(self) -> nn.Module | None:
        """The ordinary module that later steps can work on (nn.Linear); None: they take it as it is."""
        return None


def executed(model: nn.Module) -> Iterator[Replacement]:
    """The replacements that a model executes, itself included: all but the tables of embeddings."""
    if isinstance(model, Replacement):
        yield model
        if model.holds_tables:
            return
    for child in model.children():
        yield from executed(child)
