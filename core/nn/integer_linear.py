"""The base of linear layers with integer weights: a bias, any leading axes, and scales that casts do not change."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.precision import HALF_DTYPES
from core.nn.replacement import Replacement

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def dtype_name(dtype: torch.dtype) -> str:
    """The key of a dtype in DTYPES."""
    return str(dtype).removeprefix("torch.")


def scale_dtypes(weight: torch.dtype) -> tuple[torch.dtype, torch.dtype]:
    """In which dtypes the scales of weights of this dtype are stored: the preferred one, and one of full range.

    Scales of a 16-bit model are in its own dtype, those of a float32 model in float16.
    """
    return (weight if weight in HALF_DTYPES else torch.float16), torch.float32


class IntegerLinear(Replacement):
    """Base of a linear layer [out, in] whose weights are integer `codes` times `scales`.

    `dtype` is the dtype of the bias and of the layer that `dense` returns. A cast of the model changes it, but not the
    dtype of the scales.
    """

    codes: Tensor
    scales: Tensor
    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool, dtype: str):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.dtype = DTYPES[dtype]
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features, dtype=self.dtype)) if bias else None)
        self._kernel: Callable[..., Tensor] | None = None  # set by `prepare`; never saved or copied

    def weight(self) -> Tensor:
        """The dequantized weights, float32 [out, in]."""
        raise NotImplementedError(type(self).__name__)

    def rows(self, index: Tensor) -> Tensor:
        """The dequantized weights of the rows `index` [n], float32 [n, in]."""
        return self.weight()[index]

    def multiply(self, x: Tensor) -> Tensor:
        """x [rows, in] -> [rows, out] with the bias; `rows` is at least 1."""
        raise NotImplementedError(type(self).__name__)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] in the dtype of x."""
        rows = x.reshape(-1, self.in_features)
        if rows.shape[0] == 0:
            return x.new_empty(*x.shape[:-1], self.out_features)
        return self.multiply(rows).view(*x.shape[:-1], self.out_features)

    @torch.no_grad()
    def dense(self) -> nn.Linear:
        """An ordinary linear layer with the dequantized weights."""
        has_bias = self.bias is not None
        linear = nn.Linear(self.in_features, self.out_features, has_bias, device="meta")
        linear.weight = nn.Parameter(self.weight().to(self.dtype))
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone())
        return linear

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.arguments().items())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before, self._kernel = dict(self.named_buffers(recurse=False)), None
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=next(iter(before.values())).device)).dtype
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dtype != before[name].dtype:
                setattr(self, name, before[name].to(buffer.device))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kernel": None}
