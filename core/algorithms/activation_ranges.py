"""Static ranges of activations from calibration: extremes, their moving average, percentiles, or the least error.

Papers: https://arxiv.org/abs/1712.05877 (moving averages of extremes), https://arxiv.org/abs/2004.09602 (percentiles,
and the range of least error).
"""

from typing import Literal

import torch
from torch import Tensor

from core.algorithms.quantization_grids import MSE_FACTORS
from core.calibration.activations import ActivationValues
from core.nn.activation_quantizer import ActivationQuantizer, activation_grid
from core.nn.integer_linear import dtype_name
from core.nn.precision import HALF_DTYPES, is_precise

ActivationObserverName = Literal["min-max", "ema", "percentile", "mse"]


def static_range(
    values: ActivationValues, observer: ActivationObserverName, bits: int, symmetric: bool, percentile: float = 99.99
) -> tuple[Tensor, Tensor]:
    """The lower and upper end, scalars, of the range that `observer` chooses for a layer's inputs."""
    low, high = (values.averages if observer == "ema" else values.extremes).unbind()
    if observer == "percentile":
        ordered = values.sample.flatten().sort().values
        last = (len(ordered) - 1) * percentile / 100
        return ordered[len(ordered) - 1 - round(last)], ordered[round(last)]
    if observer == "mse":
        return least_error_range(values.sample, low, high, bits, symmetric)
    return low, high


def static_quantizer(bits: int, symmetric: bool, low: Tensor, high: Tensor, dtype: torch.dtype) -> ActivationQuantizer:
    """The quantizer with the static scale of a range of one element, in a model of this dtype.

    The scale is stored in a 16-bit model's dtype where that is precise enough, else in float32.
    """
    for stored in (preferred_dtype(dtype), torch.float32):
        made = ActivationQuantizer(bits, symmetric=symmetric, scale="static", scale_dtype=dtype_name(stored))
        made.to(low.device).set_range(low, high)
        if is_precise(made.static_scale, stored):
            break
    return made


def preferred_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which dtype the static scale of activations in a model of `dtype` is stored, if that is precise enough."""
    return dtype if dtype in HALF_DTYPES else torch.float32


def least_error_range(x: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Of the multiples MSE_FACTORS of a range, the one whose grid has the least squared error on x.

    Ranges [d] are of each channel of x [n, d], scalars of all of it.
    """
    over = 0 if low.dim() else None
    errors = []
    for factor in MSE_FACTORS:
        grid = activation_grid(factor * low, factor * high, bits, symmetric)
        errors.append((grid.nearest(x) - x).square().mean(over, dtype=torch.float64))
    factors = torch.tensor(MSE_FACTORS, dtype=low.dtype, device=low.device)
    best = factors[torch.stack(errors).argmin(0)]
    return best * low, best * high
