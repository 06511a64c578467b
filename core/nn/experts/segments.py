"""Rows sorted by expert, and their product with each expert's own matrix, forward and backward.

A matrix product a segment, written straight into the result: selecting `weight[e]` under autograd would make a
gradient of the size of all experts for each of them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass(frozen=True)
class Segments:
    """How many consecutive rows belong to each expert."""

    counts: Tensor  # int64 [experts]

    @cached_property
    def sizes(self) -> list[int]:
        """The counts on the host."""
        return self.counts.tolist()

    @cached_property
    def slices(self) -> list[tuple[int, slice]]:
        """The experts that have rows, and where these are."""
        ends = torch.tensor([0, *self.sizes]).cumsum(0).tolist()
        return [(e, slice(ends[e], ends[e + 1])) for e, size in enumerate(self.sizes) if size]

    @cached_property
    def ends(self) -> Tensor:
        """Where each expert's rows end, int32 [experts], on the rows' device."""
        return self.counts.cumsum(0, dtype=torch.int32)


def in_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors in autocast's precision where that is on, as F.linear takes them; the first one's device counts."""
    assert tensors[0] is not None
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [None if t is None else t.to(dtype) for t in tensors]


def segmented_linear(x: Tensor, weight: Tensor, bias: Tensor | None, segments: Segments) -> Tensor:
    """Rows x [n, in] times weight [experts, out, in] of the expert whose segment they are in, plus bias [experts, out].

    -> [n, out]
    """
    x, weight, bias = in_autocast(x, weight, bias)  # type: ignore[assignment]
    if not has_grouped_kernel(x, weight):
        product: Tensor = _SegmentedLinear.apply(x, weight, bias, segments)
        return product
    product = F.grouped_mm(x, weight.transpose(1, 2), offs=segments.ends)
    return product if bias is None else product + bias.repeat_interleave(segments.counts, dim=0, output_size=len(x))


def has_grouped_kernel(x: Tensor, weight: Tensor) -> bool:
    """Whether torch's grouped product runs these as one kernel: bfloat16 on Ampere or later, rows of 16 bytes.

    On a CPU it is slower than a product a segment.
    """
    if not x.is_cuda or not len(x) or any(n % 8 for n in weight.shape[1:]):
        return False
    dtypes = {torch.get_autocast_dtype("cuda")} if torch.is_autocast_enabled("cuda") else {x.dtype, weight.dtype}
    return dtypes == {torch.bfloat16} and torch.cuda.get_device_capability(x.device) >= (8, 0)


class _SegmentedLinear(torch.autograd.Function):
    """A product a segment; experts without rows have gradients of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, segments: Segments) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.segments, ctx.has_bias = segments, bias is not None
        product = x.new_empty(len(x), weight.shape[1])
        for e, rows in segments.slices:
            if bias is None:
                torch.mm(x[rows], weight[e].t(), out=product[rows])
            else:
                torch.addmm(bias[e], x[rows], weight[e].t(), out=product[rows])
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = weight.new_empty(weight.shape[:2]) if ctx.has_bias and ctx.needs_input_grad[2] else None
        for e, size in enumerate(ctx.segments.sizes):
            for made in (of_weight, of_bias):
                if made is not None and not size:
                    made[e].zero_()
        for e, rows in ctx.segments.slices:
            if of_x is not None:
                torch.mm(gradient[rows], weight[e], out=of_x[rows])
            if of_weight is not None:
                torch.mm(gradient[rows].t(), x[rows], out=of_weight[e])
            if of_bias is not None:
                torch.sum(gradient[rows], dim=0, out=of_bias[e])
        return of_x, of_weight, of_bias, None
