"""Linear layer of a pruned weight, packed, and executed by a sparse kernel where one is faster."""

import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

from core.nn.packing import NM
from core.nn.sparse_weight import SparseWeight

CSR_MAX_DENSITY, CSR_MIN_WEIGHTS = 0.1, 2**19
"""Up to which share of kept weights, and from which size, torch's CSR product is the faster one on a CPU.

Measured on one core with AVX512, 1, 16, 128 and 512 rows, in times of the dense product: 3072 x 768 takes 0.73,
0.35, 0.72, 0.71 at 10 % and 1.36, 0.48, 0.55, 1.18 at 20 %; 192 x 192 takes 2.2, 1.1, 1.1, 1.2 at 10 %.
`benchmarks/sparse_linear.py` measures it again.
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
        rows = x.reshape(-1, self.in_features)
        product = (weight @ rows.t()).t() if weight.layout == torch.sparse_csr else F.linear(rows, weight)
        return (product if self.bias is None else product + self.bias).reshape(*x.shape[:-1], self.out_features)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type == "cpu" and dtype == torch.float32:
            size = self.shape.numel()
            return CSR if size >= CSR_MIN_WEIGHTS and self.layout.n_values <= CSR_MAX_DENSITY * size else None
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
                weight = _csr(weight)
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


def _csr(weight: Tensor) -> Tensor:
    """With 32-bit indices, which the kernel wants: it would convert others at every product."""
    made = weight.to_sparse_csr()
    return torch.sparse_csr_tensor(made.crow_indices().int(), made.col_indices().int(), made.values(), made.shape)
