"""The residual stream between a Transformer's blocks: which of its tokens are real, and how much it turns.

Papers: https://arxiv.org/abs/2403.03853 (block influence), https://arxiv.org/abs/2403.17887 (angular distance).
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.reversible import ReversibleStack


def block_influence(before: Tensor, after: Tensor) -> Tensor:
    """1 - cos between the residual stream before and after a block, for each token: [n, dim] -> [n]."""
    return 1 - F.cosine_similarity(before.float(), after.float(), dim=-1)


def angular_distance(before: Tensor, after: Tensor) -> Tensor:
    """Angle between the streams, as a share of pi, for each token: [n, dim] -> [n]."""
    return F.cosine_similarity(before.float(), after.float(), dim=-1).clamp(-1, 1).arccos() / torch.pi


class Trace:
    """Mean influence of every block, and mean angle across every `n` contiguous ones, over real tokens."""

    def __init__(self, depth: int, n: int, *, last_token_only: bool):
        self.last_token_only = last_token_only
        self.influence, self.n_tokens = torch.zeros(depth, dtype=torch.float64), 0
        self.distances, self.n_turned = torch.zeros(depth - n + 1, dtype=torch.float64), 0
        self._states: deque[Tensor] = deque(maxlen=n + 1)  # the stream before the last n blocks, and after them
        self._tokens = self._turned = torch.zeros(0)

    @contextmanager
    def watching(self, blocks: nn.Module, batch: dict[str, Tensor]) -> Iterator[None]:
        """Inside, one forward pass of the model on `batch` counts; `blocks` is the list of its blocks."""
        self._states.clear()

        def enter(index: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            self._visit(index, arguments[0] if arguments else keywords["hidden_states"], batch.get("attention_mask"))

        def leave(output: Any) -> None:
            self._visit(len(listed), output if isinstance(output, Tensor) else output[0], None)

        def enter_stack(stack: ReversibleStack, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            halves = stack.halves(keywords["mask"], None, keywords["positions"])
            for index, (first, second) in enumerate(stack.streams(arguments[0], halves)):
                self._visit(index, (first + second) / 2, batch.get("attention_mask"))

        listed = list(blocks.children())
        if isinstance(blocks, ReversibleStack):
            handles = [blocks.register_forward_pre_hook(enter_stack, with_kwargs=True)]
        else:
            handles = [
                block.register_forward_pre_hook(lambda _, args, kwargs, i=i: enter(i, args, kwargs), with_kwargs=True)
                for i, block in enumerate(listed)
            ]
            handles.append(listed[-1].register_forward_hook(lambda _, __, output: leave(output)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def means(self) -> tuple[list[float], list[float]]:
        """Influence of each block, and angle across the n blocks from each on."""
        return (self.influence / self.n_tokens).tolist(), (self.distances / self.n_turned).tolist()

    def _visit(self, index: int, x: Tensor, attention_mask: Tensor | None) -> None:
        """The stream x [B, T, dim] on its way into block `index`, or out of the last."""
        if index == 0:
            self._tokens = real_tokens(x, attention_mask)
            self._turned = last_of(self._tokens) if self.last_token_only else self._tokens
            self.n_tokens += int(self._tokens.sum())
            self.n_turned += int(self._turned.sum())
        else:
            before = self._states[-1]
            self.influence[index - 1] += block_influence(before[self._tokens], x[self._tokens]).sum().item()
        self._states.append(x)
        if len(self._states) == self._states.maxlen:
            first = index + 1 - len(self._states)
            angle = angular_distance(self._states[0][self._turned], x[self._turned])
            self.distances[first] += angle.sum().item()


def real_tokens(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Which tokens of a stream x [B, T, dim] are not padding [B, T]; tokens that the model prepended count."""
    if attention_mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    attention_mask = attention_mask.flatten(0, -2)  # a pair's texts are two
    return F.pad(attention_mask.bool(), (x.shape[1] - attention_mask.shape[1], 0), value=True)


def last_of(tokens: Tensor) -> Tensor:
    """Of each row [B, T] only the last True."""
    return tokens & (tokens.flip(1).cumsum(1).flip(1) == 1)
