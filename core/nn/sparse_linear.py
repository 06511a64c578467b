"""Linear layer of a pruned weight, packed, and executed by a sparse kernel where one is faster."""

import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

from core.nn.packing import NM
from core.nn.sparse_weight import SparseWeight

CSR_MAX_DENSITY = 0.05
"""Share of kept weights up to which torch's CSR product is faster than the dense one on a CPU.

Measured on one core with AVX512, layers of 768 to 4096, 1 to 512 rows: at 5 % the CSR product takes 0.25 to 1.0
times the dense one, at 10 % 0.6 (1 row) to 2 times (512 rows). `benchmarks/sparse_linear.py` measures it again.
"""
CSR, SEMI_STRUCTURED = "csr", "semi-structured 2:4"


class SparseLinear(SparseWeight):
    """Linear layer whose pruned weights take no room; `layout` tells how the places of the others are stored."""

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        layout: str,
        *,
        nnz: int | None = None,
        n: int | None = None,
        m: int | None = None,
        bias: bool = True,
        dtype: str = "float32",
    ):
        super().__init__((out_features, in_features), layout, nnz=nnz, n=n, m=m, dtype=dtype)
        self.in_features = in_features
        self.out_features = out_features
        empty = torch.zeros(out_features, dtype=self.values.dtype)
        self.register_parameter("bias", nn.Parameter(empty) if bias else None)

    @classmethod
    @torch.no_grad()
    def pack(cls, linear: nn.Linear, mask: Tensor) -> Self:
        """`linear` with only the weights kept that `mask` [out, in] is True for, in the smallest layout."""
        arguments = cls.layout_arguments(linear.weight, mask)
        packed = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, **arguments)
        packed.store(linear.weight, mask)
        if linear.bias is not None:
            packed.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=linear.bias.requires_grad)
        return packed.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        weight = self.weight() if self._laid_out is None else self._laid_out
        if weight.layout == torch.strided and not isinstance(weight, SparseSemiStructuredTensor):
            return F.linear(x, weight, self.bias)
        product = F.linear(x.reshape(-1, self.in_features), weight)  # [rows, out]
        return (product if self.bias is None else product + self.bias).view(*x.shape[:-1], self.out_features)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type == "cpu" and dtype == torch.float32:
            return CSR if self.layout.n_values <= CSR_MAX_DENSITY * self.shape.numel() else None
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
            return SEMI_STRUCTURED if self._fits_semi_structured(dtype) else None
        return None

    def _fits_semi_structured(self, dtype: torch.dtype) -> bool:
        """2:4 (or sparser within 4) in half precision, of sizes that the kernel's tiles divide."""
        holds = isinstance(self.layout, NM) and (self.layout.n, self.layout.m) in ((1, 2), (2, 4), (1, 4))
        tiles = self.out_features % 32 == 0 and self.in_features % 64 == 0
        return holds and tiles and dtype in (torch.float16, torch.bfloat16)

    def prepare(self) -> None:
        weight = self.weight()
        kernel = self.kernel(weight.device, weight.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # both layouts are announced as beta
            if kernel == CSR:
                weight = weight.to_sparse_csr()
            elif kernel == SEMI_STRUCTURED:
                weight = to_sparse_semi_structured(weight)
        self._laid_out = weight

    def macs(self, shape: torch.Size) -> int | None:
        rows = shape.numel() // shape[-1]
        if self._laid_out is not None and self._laid_out.layout == torch.sparse_csr:
            return rows * self._laid_out.values().numel()
        if isinstance(self._laid_out, SparseSemiStructuredTensor):
            return rows * self.shape.numel() // 2
        return None

    @torch.no_grad()
    def dense(self) -> nn.Linear:
        """An ordinary linear layer with exactly the same weights."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight = nn.Parameter(self.weight())
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone())
        return linear

    def arguments(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            **self.stored_arguments(),
            "bias": self.bias is not None,
        }
