"""Reversible blocks: a training keeps no activations of them, since each block's inputs follow from its outputs.

Paper: https://arxiv.org/abs/2001.04451 (Reformer, section 3), as Terraformer has them
(https://arxiv.org/abs/2111.12763): two streams begin alike, y1 = x1 + attention(norm1(x2)),
y2 = x2 + ffn(norm2(y1)), and their mean goes on.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.nn.cache import LayerCache
from core.nn.ffn.masked import feed_forward
from core.nn.replacement import Replacement


class StackCache:
    """The caches of all blocks of a stack."""

    def __init__(self, caches: list[LayerCache]):
        self.caches = caches

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self.caches[0].length


class ReversibleStack(Replacement):
    """All blocks of a Transformer in the place of their list; whoever goes through that list finds the stack alone.

    The blocks keep their names, so that later steps find the same linears as before. In training its memory does not
    grow with their number; the backward pass computes every block a second time. In evaluation gradients are the
    ordinary ones, which also reach values outside the stack's parameters (gates that measure a head's importance).
    """

    def __init__(self, n_blocks: int):
        super().__init__()
        self.n_blocks = n_blocks

    def adopt(self, original: nn.Module) -> None:
        for name, block in original.named_children():
            self.add_module(name, block)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([self])

    def __len__(self) -> int:
        return 1

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        cache: StackCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """[B, T, dim] -> [B, T, dim]; the keywords are a block's, the cache that of the whole stack."""
        halves = self.halves(mask, cache, positions)
        parameters = [p for p in self.parameters() if p.requires_grad]
        if self.training and torch.is_grad_enabled() and cache is None and (parameters or x.requires_grad):
            self._refuse_losses()
            mixed: Tensor = _Reversed.apply(x, self, halves, *parameters)
            return mixed
        first, second = deque(self.streams(x, halves), maxlen=1)[0]
        return (first + second) / 2

    def streams(self, x: Tensor, halves: list["Halves"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Both streams before each block and after the last: their mean is what the other blocks' single one is."""
        first, second = x, x
        yield first, second
        for attention, ffn in halves:
            first = first + attention(second)
            second = second + ffn(first)
            yield first, second

    def halves(self, mask: Tensor | None, cache: StackCache | None, positions: Tensor | None) -> list["Halves"]:
        """What each block adds to its two streams."""
        caches = cache.caches if cache is not None else [None] * self.n_blocks
        return [_halves(block, mask, own, positions) for block, own in zip(self.children(), caches, strict=True)]

    def make_cache(self, max_length: int) -> StackCache:
        """An empty cache of every block."""
        attentions: list[Any] = [block.attention for block in self.children()]
        return StackCache([attention.make_cache(max_length) for attention in attentions])

    def _refuse_losses(self) -> None:
        """What is computed without a gradient in the forward pass can publish no loss."""
        for name, module in self.named_modules():
            if hasattr(module, "aux_losses"):
                raise RuntimeError(f"{name} adds a loss of its own, which reversible blocks cannot backpropagate")

    def arguments(self) -> dict[str, Any]:
        return {"n_blocks": self.n_blocks}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"


Halves = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def _halves(block: nn.Module, mask: Tensor | None, cache: LayerCache | None, positions: Tensor | None) -> Halves:
    parts: Any = block

    def attention(x: Tensor) -> Tensor:
        mixed: Tensor = parts.attention(parts.norm1(x), mask=mask, cache=cache, positions=positions)
        return mixed

    def ffn(x: Tensor) -> Tensor:
        return feed_forward(parts.ffn, parts.norm2(x), mask=mask, attention=parts.attention)

    return attention, ffn


class _Reversed(torch.autograd.Function):
    """The stack, of which only the two last streams and the random states are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stack: ReversibleStack, halves: list[Halves], *parameters: Tensor) -> Tensor:
        device = x.device.type
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
        }
        ctx.halves, ctx.parameters, ctx.states = halves, parameters, []
        first, second = x, x
        for attention, ffn in halves:
            ctx.states.append(_random_state(x.device))
            first = first + attention(second)
            ctx.states.append(_random_state(x.device))
            second = second + ffn(first)
        ctx.save_for_backward(first, second)
        return (first + second) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, second = ctx.saved_tensors
        of_first, of_second = gradient / 2, gradient / 2
        collected: dict[int, Tensor] = {}
        states = list(ctx.states)
        for attention, ffn in reversed(ctx.halves):
            second, added = _undone(ctx, ffn, first, second, of_second, states.pop(), collected)
            of_first = of_first + added
            first, added = _undone(ctx, attention, second, first, of_first, states.pop(), collected)
            of_second = of_second + added
        return (of_first + of_second, None, None, *(collected.get(i) for i in range(len(ctx.parameters))))


def _undone(
    ctx: Any,
    half: Callable[[Tensor], Tensor],
    source: Tensor,
    sum_: Tensor,
    gradient: Tensor,
    state: list[Tensor],
    collected: dict[int, Tensor],
) -> tuple[Tensor, Tensor]:
    """What `sum_` was before half(source) was added, and source's gradient through it; parameters' are collected."""
    with torch.enable_grad(), torch.autocast(**ctx.autocast), _random(source.device, state):
        source = source.detach().requires_grad_()
        added = half(source)
    found = torch.autograd.grad(added, [source, *ctx.parameters], gradient.to(added.dtype), allow_unused=True)
    for index, part in enumerate(found[1:]):
        if part is not None:
            collected[index] = collected[index] + part if index in collected else part
    return sum_ - added.detach(), found[0]


def _random_state(device: torch.device) -> list[Tensor]:
    own = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *own]


@contextmanager
def _random(device: torch.device, state: list[Tensor]) -> Iterator[None]:
    """Draw what was drawn after `state` once more, and go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state[1], device)
        yield
