"""Linear layer that multiplies int8 activations by int8 weights in integer arithmetic.

Papers: https://arxiv.org/abs/2206.01861 (ZeroQuant: activations token by token), https://arxiv.org/abs/2208.07339
(LLM.int8: the outer product of row and column scales). Weights have one scale for each output, activations one for
each row, computed when the row arrives. The product is exact in int32, so all kernels give the same result.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from core.nn.integer_linear import DTYPES, IntegerLinear, dtype_name
from core.nn.replacement import WeightCount

Multiply = Callable[[Tensor], Tensor]  # int8 codes [rows, in] -> float32 [rows, out], scaled by output
SMALLEST_SCALE = 1e-30


class QuantizedRows(NamedTuple):
    """Rows as int8 codes [rows, in] and float32 scales [rows, 1]."""

    codes: Tensor
    scales: Tensor


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Round each row to the codes -127..127; a row with NaN or infinity gets such a scale too.

    The code -128 stays unused, unlike in weights. With the scale max / 127.5 of all 256 levels the largest value could
    round to 128, which int8 cannot hold, so every call would have to clamp. 127 never overflows.
    """
    x = x.float()
    largest = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())
    scales = largest.div_(127).clamp_min_(SMALLEST_SCALE)
    return QuantizedRows((x * scales.reciprocal()).round_().to(torch.int8), scales)


class _Shared(threading.local):
    """The input that several layers are called with, and its codes once one of them has rounded it."""

    source: Tensor | None = None
    rows: QuantizedRows | None = None


_shared = _Shared()


@contextmanager
def shared_input(x: Tensor) -> Iterator[None]:
    """Inside, layers that are called with x (q, k and v) round it only once; nothing may write to x meanwhile."""
    before = _shared.source, _shared.rows
    _shared.source, _shared.rows = x, None
    try:
        yield
    finally:
        _shared.source, _shared.rows = before


def _rounded(x: Tensor) -> QuantizedRows:
    """`quantize_rows(x)` of x [rows, in], reused from an earlier layer with the same input."""
    source = _shared.source
    if source is None or not _is_same(x, source):
        return quantize_rows(x)
    if _shared.rows is None or _shared.rows.codes.shape != x.shape:
        _shared.rows = quantize_rows(x)
    return _shared.rows


def _is_same(x: Tensor, source: Tensor) -> bool:
    """Whether x [rows, in] is `source` [..., in] with its leading axes flattened."""
    same_memory = x.data_ptr() == source.data_ptr() and x.numel() == source.numel()
    return same_memory and x.is_contiguous() and source.is_contiguous()


class DynamicInt8Linear(IntegerLinear):
    """Weights int8 [out, in] with scales [out]; the layout that `prepare` makes for a kernel is not saved.

    Scales are stored in `scale_dtype`; products are computed with them in float32.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        scale_dtype: str = "float32",
        bias: bool = True,
        dtype: str = "float32",
    ):
        super().__init__(in_features, out_features, bias=bias, dtype=dtype)
        self.register_buffer("codes", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(out_features, dtype=DTYPES[scale_dtype]))

    @classmethod
    @torch.no_grad()
    def of(cls, linear: nn.Linear, codes: Tensor, scales: Tensor) -> Self:
        """The layer that replaces `linear`: codes int8 [out, in], scales [out, 1] as they are stored."""
        has_bias = linear.bias is not None
        layer = cls(linear.in_features, linear.out_features, bias=has_bias, dtype=dtype_name(linear.weight.dtype))
        layer = layer.to(linear.weight.device)
        layer.codes, layer.scales = codes.contiguous(), scales[:, 0].contiguous()
        if layer.bias is not None:
            layer.bias.data.copy_(linear.bias.data)
        return layer

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "scale_dtype": dtype_name(self.scales.dtype),
            "bias": self.bias is not None,
            "dtype": dtype_name(self.dtype),
        }

    def multiply(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return self._multiply_with_gradient(x)
        rows = _rounded(x)
        multiply = self._kernel or self._unprepared()
        product = multiply(rows.codes).mul_(rows.scales)
        if self.bias is not None:
            product.add_(self.bias)
        return product.to(x.dtype)

    def weight(self) -> Tensor:
        return self.unpacked().float().mul_(self.scales.float()[:, None])

    def rows(self, index: Tensor) -> Tensor:
        return self.unpacked()[index].float().mul_(self.scales[index].float()[:, None])

    def unpacked(self) -> Tensor:
        """All codes, int8 [out, in]."""
        return self.codes

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type == "cpu" and has_onednn():
            return "int8 oneDNN, scales by row"
        if device.type == "cuda" and self._fits_cuda():
            return "int8 cuBLASLt, scales by row"
        return None

    def prepare(self) -> None:
        if self.codes.device.type == "cpu" and has_onednn():
            self._kernel = onednn_multiply(self.unpacked(), self.scales.float())
        elif self.codes.is_cuda and self._fits_cuda():
            self._kernel = cuda_multiply(self.unpacked(), self.scales.float())

    def count(self) -> WeightCount:
        nonzeros = int(torch.count_nonzero(self.codes))
        return WeightCount(weights=self.in_features * self.out_features, nonzeros=nonzeros, bits=8.0)

    def _multiply_with_gradient(self, x: Tensor) -> Tensor:
        """The same product; the gradient passes straight through the rounding of x."""
        with torch.no_grad():
            rows = quantize_rows(x)
            error = rows.scales * rows.codes.float() - x
        return nn.functional.linear(x + error, self.weight(), self.bias).to(x.dtype)

    def _unprepared(self) -> Multiply:
        multiply = cuda_multiply if self.codes.is_cuda and self._fits_cuda() else float_multiply
        return multiply(self.unpacked(), self.scales.float())

    def _fits_cuda(self) -> bool:
        return self.in_features % 8 == 0 and self.out_features % 8 == 0


def cuda_multiply(codes: Tensor, scales: Tensor) -> Multiply:
    """The product with codes [out, in] of scales [out] by cuBLASLt."""

    def run(x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, 0, 0, max(0, 17 - len(x))))  # the kernel needs more than 16 rows
        return torch._int_mm(padded, codes.t())[: len(x)].float().mul_(scales)

    return run


def float_multiply(codes: Tensor, scales: Tensor, exact: torch.dtype = torch.float64) -> Multiply:
    """The product without an integer kernel, summed in a dtype that is exact for it.

    float64 holds every sum of fewer than 2**39 products of 8-bit codes.
    """
    return lambda x: (x.to(exact) @ codes.t().to(exact)).float().mul_(scales)


def onednn_multiply(codes: Tensor, scales: Tensor) -> Multiply:
    """The product with codes [out, in] of scales [out], packed for oneDNN (with AMX or VNNI where available)."""
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    zero_points = torch.zeros(len(codes), dtype=torch.int32)
    multiply = torch.ops.onednn.qlinear_pointwise.default

    def run(x: Tensor) -> Tensor:
        return multiply(x, 1.0, 0, packed, scales, zero_points, None, 1.0, 0, torch.float32, "none", [], "")

    return run


@cache
def has_onednn() -> bool:
    """Whether oneDNN's integer linear is available and exact: without VNNI its 16-bit sums of large codes saturate."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        return False
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    x, weight = (torch.full((64, 64), 127, dtype=torch.int8) for _ in range(2))
    x[1::2], weight[1::2] = -127, -128
    exact = (x.double() @ weight.double().t()).float()
    return torch.equal(onednn_multiply(weight, torch.ones(64))(x), exact)
