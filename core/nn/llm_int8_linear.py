"""Linear layer in int8 that multiplies outlier columns of its input unrounded, in float32.

Paper: https://arxiv.org/abs/2208.07339 (LLM.int8, section 3). As in the authors' library, the weights of outlier
columns are their dequantized codes, since which columns they are is known only when the input arrives.
"""

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.nn.precision import wide


class LlmInt8Linear(DynamicInt8Linear):
    """A `DynamicInt8Linear` whose inputs of magnitude `threshold` or more are multiplied as they are.

    A column counts as an outlier if one row of the batch has such an input in it. The rest of each row is rounded with
    the scale of its largest value that is left, so an infinite threshold gives a `DynamicInt8Linear`.
    """

    def __init__(self, in_features: int, out_features: int, *, threshold: float, **format: Any):
        super().__init__(in_features, out_features, **format)
        self.threshold = threshold

    @classmethod
    def around(cls, layer: DynamicInt8Linear, threshold: float) -> Self:
        """The layer with the same weights, shared with `layer`."""
        made = cls(**layer.arguments(), threshold=threshold)
        made.codes, made.scales, made.bias = layer.codes, layer.scales, layer.bias
        return made.train(layer.training)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "threshold": self.threshold}

    def multiply(self, x: Tensor) -> Tensor:
        outliers = (x.detach().abs() >= self.threshold).any(0)  # [in]
        columns = outliers.nonzero().flatten()
        if not len(columns):
            return super().multiply(x)
        rest = super().multiply(wide(x).masked_fill(outliers, 0))
        apart = F.linear(wide(x[:, columns]), self.unpacked()[:, columns].to(wide(x).dtype))
        return (rest + apart * self.scales.float()).to(x.dtype)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        found = super().kernel(device, dtype)
        return None if found is None else f"{found}, outlier columns apart"
