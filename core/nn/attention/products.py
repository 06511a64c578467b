"""The two products inside of attention, q k and probabilities v, over quantized operands."""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.integer_functions import softmax as integer_softmax
from core.nn.precision import wide, without_autocast
from core.nn.uneven_quantizers import make_quantizer

OPERANDS = ("query", "key", "scores", "probabilities", "value")
_UNSEEN = -1e4


class AttentionProducts(nn.Module):
    """softmax(q k / sqrt(d)) v, with a quantizer for each operand; one that has none yet passes as it is.

    `approximate_exp` takes the exponential from integer arithmetic.
    """

    query: nn.Module
    key: nn.Module
    scores: nn.Module
    probabilities: nn.Module
    value: nn.Module

    def __init__(self, operands: dict[str, dict[str, Any]], *, approximate_exp: bool = False):
        super().__init__()
        self.approximate_exp = approximate_exp
        for name in OPERANDS:
            self.add_module(name, make_quantizer(**operands[name]) if name in operands else nn.Identity())

    def operands(self) -> dict[str, dict[str, Any]]:
        """The arguments of the quantizers, by operand."""
        known = {name: self.get_submodule(name) for name in OPERANDS}
        return {name: q.arguments() for name, q in known.items() if not isinstance(q, nn.Identity)}  # type: ignore

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scaling: float, allowed: Tensor | None = None) -> Tensor:
        """[B, heads, T, d] of q, and k and v [B, kv_heads, n, d]; `allowed` is True, or 0, if a key is seen."""
        q, k, v = self.query(q), self.key(k), self.value(v)
        shared = q.shape[1] // k.shape[1]
        if shared > 1:
            k, v = (x.repeat_interleave(shared, dim=1) for x in (k, v))
        with without_autocast(q.device):
            scores = self.scores(wide(q) @ wide(k).mT * scaling)
            if allowed is not None:
                seen = allowed if allowed.dtype == torch.bool else allowed >= 0
                scores = scores.masked_fill(~seen, _UNSEEN)
            probabilities = integer_softmax(scores) if self.approximate_exp else scores.softmax(-1)
            mixed: Tensor = self.probabilities(probabilities) @ wide(v)
            return mixed.to(q.dtype)
