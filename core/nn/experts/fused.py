"""All experts' feed-forward networks in one pass, expert after expert, for devices without a grouped product.

An expert's hidden units stay in the cache from one product to the next, and backward computes them again from what the
first products gave, so that less is kept than layer by layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from core.nn.experts.segments import Segments
from core.nn.experts.spare import Spare

Mix = Callable[[Sequence[Tensor]], Tensor]  # what the first layers gave -> the hidden units


class FusedExperts(torch.autograd.Function):
    """Rows x [n, dim] sorted by expert -> [n, dim]: `mix` of the first layers, then the last one.

    `tensors` are the layers' weights [experts, out, in] and then their biases [experts, out] or None, the last layer's
    last; `spares` has the memory of each weight's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, segments: Segments, mix: Mix, spares: Sequence[Spare], *tensors: Tensor | None
    ) -> Tensor:
        n_layers = len(spares)
        weights, biases = tensors[:n_layers], tensors[n_layers:]
        out, kept = torch.empty_like(x), list[Tensor]()
        for e, rows in segments.slices:
            parts = [_linear(x[rows], w, b, e) for w, b in zip(weights[:-1], biases[:-1], strict=True)]
            _linear(mix(parts), weights[-1], biases[-1], e, out=out[rows])
            if any(ctx.needs_input_grad):
                kept += parts
        ctx.save_for_backward(x, *weights, *kept)
        ctx.segments, ctx.mix, ctx.spares, ctx.biased = segments, mix, spares, biases[0] is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        n_layers, n_parts = len(ctx.spares), len(ctx.spares) - 1
        x, *saved = ctx.saved_tensors
        weights, kept = saved[:n_layers], saved[n_layers:]
        of_x = torch.empty_like(x)
        of_weights = [spare.empty_like(w) for spare, w in zip(ctx.spares, weights, strict=True)]
        of_biases = [w.new_empty(w.shape[:2]) if ctx.biased else None for w in weights]
        for e, size in enumerate(ctx.segments.sizes):
            for made in (*of_weights, *of_biases):
                if made is not None and not size:
                    made[e].zero_()
        for index, (e, rows) in enumerate(ctx.segments.slices):
            parts = kept[index * n_parts : (index + 1) * n_parts]
            hidden, of_parts = _through(ctx.mix, parts, gradient[rows] @ weights[-1][e])
            inputs = [x[rows]] * len(of_parts) + [hidden]
            for i, (of_part, layer_input) in enumerate(zip([*of_parts, gradient[rows]], inputs, strict=True)):
                torch.mm(of_part.t(), layer_input, out=of_weights[i][e])
                if (of_bias := of_biases[i]) is not None:
                    torch.sum(of_part, dim=0, out=of_bias[e])
            torch.mm(of_parts[0], weights[0][e], out=of_x[rows])
            for of_part, weight in zip(of_parts[1:], weights[1:-1], strict=True):
                of_x[rows].addmm_(of_part, weight[e])
        return of_x, None, None, None, *of_weights, *of_biases


def _linear(x: Tensor, weight: Tensor | None, bias: Tensor | None, e: int, out: Tensor | None = None) -> Tensor:
    assert weight is not None
    if bias is None:
        return torch.mm(x, weight[e].t(), out=out)
    return torch.addmm(bias[e], x, weight[e].t(), out=out)


def _through(mix: Mix, parts: Sequence[Tensor], of_hidden: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """The hidden units again, and the gradients of what they were made from."""
    leaves = [part.detach().requires_grad_() for part in parts]
    with torch.enable_grad():
        hidden = mix(leaves)
    return hidden.detach(), torch.autograd.grad(hidden, leaves, of_hidden)
