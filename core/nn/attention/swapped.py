"""What an attention has that a technique puts in the place of another: the other's projections."""

from typing import Any, ClassVar, Self

import torch

from core.nn.attention.base import Attention
from core.nn.replacement import Replacement


class SwappedAttention(Attention, Replacement):
    """An attention that works with the q, k, v and o of the one whose place it takes.

    A subclass's constructor takes what `Attention` takes and keywords of its own, named in `settings` and kept as
    attributes of the same names. Parameters that it adds are not drawn by the constructor but by `initialize_`.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    per_head: ClassVar[tuple[str, ...]] = ()  # tensors whose first axis is the heads
    global_tokens: int = 0  # learned ones, in front of the others
    has_further_parts: ClassVar[bool] = False  # True: steps that cut heads or turn the stream must refuse it

    @classmethod
    def from_attention(cls, attention: Attention, **settings: Any) -> Self:
        """The same projections (not copies), mixing otherwise."""
        made = cls(**attention.shape(), **settings)
        for name in ("q", "k", "v", "o", "rotary"):
            setattr(made, name, getattr(attention, name))
        packed_or_plain = next(iter(attention.state_dict().values()))
        return made.to(packed_or_plain.device).train(attention.training)

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Draw the parameters that the attention before did not have; nothing is done on the meta device."""

    def arguments(self) -> dict[str, Any]:
        return {**self.shape(), **{name: getattr(self, name) for name in self.settings}}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return "dense"
