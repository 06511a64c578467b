"""Cast: every floating-point weight in 16 bits, and so every operation too.

Paper: https://arxiv.org/abs/1905.12322 (bfloat16), https://arxiv.org/abs/1710.03740 (float16). Here for inference: no
float32 copy is kept. Integer weights keep their scales as they are.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import OneShot

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Cast(OneShot):
    """Convert the whole model to a 16-bit floating-point type."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/1905.12322"

    dtype: Literal["bf16", "fp16"] = Field(
        "bf16", description="bf16 has float32's range; fp16 has three more bits of precision"
    )

    def label(self) -> str:
        """The type."""
        return self.dtype

    def check(self, subject: Subject) -> None:
        """No weight is too large for the type."""
        if self.dtype == "fp16" and (name := _overflowing(subject)) is not None:
            message = f"would overflow weights of {name} to infinity"
            raise SpecError.of("dtype", self.dtype, message, "Choose bf16.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Cast parameters and buffers; masks go on holding, since zero is zero in every type."""
        for model in subject.models.values():
            cast_(model, DTYPES[self.dtype])


def cast_(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast all saved tensors of a model; tensors computed at construction (rotary frequencies) do not change."""
    computed = [
        (module, name, module._buffers[name])
        for module in model.modules()
        for name in module._non_persistent_buffers_set
    ]
    model.to(dtype)
    for module, name, buffer in computed:
        module._buffers[name] = buffer


def _overflowing(subject: Subject) -> str | None:
    """Name of the first parameter with a finite value that float16 cannot hold."""
    limit = torch.finfo(torch.float16).max
    for name, parameter in subject.model.named_parameters():
        finite = not parameter.is_meta and parameter.is_floating_point() and parameter.isfinite().all()
        if finite and parameter.numel() and parameter.abs().max() > limit:
            return name
    return None
