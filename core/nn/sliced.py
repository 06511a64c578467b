"""Parts of a Transformer whose residual stream was rotated and cut: its norm, and a block that hands the stream on.

Paper: https://arxiv.org/abs/2401.15024 (SliceGPT, section 3).
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.replacement import Replacement


class SlicedNorm(Replacement):
    """x / sqrt(|x|^2 / width + eps), where `width` is that of the stream before it was cut; without weights."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.width = width
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., kept] -> [..., kept]; half precision is computed in float32."""
        precise = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean_square = precise.square().sum(-1, keepdim=True) / self.width
        return (precise * torch.rsqrt(mean_square + self.eps)).to(x.dtype)

    def arguments(self) -> dict[str, Any]:
        return {"width": self.width, "eps": self.eps}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"


class SlicedBlock(Replacement):
    """x skip1 + attention(norm1(x)), then x skip2 + ffn(norm2(x)), with the parts of the block whose place it takes.

    A skip matrix [kept, kept] turns the stream from the basis of one norm into that of the next. `parts` names the
    submodules that are norm1, attention, norm2 and ffn, there one or several that are called one after the other; they
    keep their names, so that later steps find the same linears as before. `drop` is the dropout of what is added to
    the stream.
    """

    def __init__(self, parts: dict[str, list[str]], kept: int, drop: float):
        super().__init__()
        self.parts = parts
        self.kept = kept
        self.drop = drop
        self.skip1 = nn.Parameter(torch.eye(kept))
        self.skip2 = nn.Parameter(torch.eye(kept))
        self._keywords: list[str] = []  # what the original block calls its arguments after the first

    def adopt(self, original: nn.Module) -> None:
        self._keywords = list(inspect.signature(original.forward).parameters)[1:]
        for name, child in original.named_children():
            self.add_module(name, child)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B, T, kept] -> [B, T, kept]; what else the block is called with goes to its attention."""
        x = x @ self.skip1 + self.mix(x, *args, **kwargs)
        return x @ self.skip2 + self.feed(x)

    def mix(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """attention(norm1(x)); its arguments by name, since attentions have theirs in other orders than blocks."""
        named = dict(zip(self._keywords, args, strict=False)) | kwargs
        mixed = self._call("attention", self._call("norm1", x), **named)
        return F.dropout(mixed[0] if isinstance(mixed, tuple) else mixed, self.drop, self.training)

    def feed(self, x: Tensor) -> Tensor:
        """ffn(norm2(x))."""
        return F.dropout(self._call("ffn", self._call("norm2", x)), self.drop, self.training)

    def _call(self, part: str, x: Tensor, **kwargs: Any) -> Any:
        for name in self.parts[part]:
            x = self.get_submodule(name)(x, **kwargs)
        return x

    def arguments(self) -> dict[str, Any]:
        return {"parts": self.parts, "kept": self.kept, "drop": self.drop}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"
