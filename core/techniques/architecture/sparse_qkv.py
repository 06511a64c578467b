"""Sparse QKV: queries, keys and values by one multiplicative layer and small convolutions, no output projection.

Paper: https://arxiv.org/abs/2111.12763 (Scaling Transformers, section 3.2); kernels, padding and initial weights are
those of its authors' code. The convolutions look back along the text, so that this is for causal models alone: in a
bidirectional one a token would see its neighbours on one side only. Dense projections cannot be taken over: the
weights are drawn anew, and the model is trained after this step. To give back the parameters that this saves, the
authors widen the feed-forward network by half (ffn_ratio 6), which is the model's setting.
"""

import math

from pydantic import Field
from torch import nn

from core.algorithms.module_swapping import forget_training, full_attentions
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.attention.full import FullAttention
from core.nn.attention.sparse_qkv import SparseQkvAttention
from core.subject import Subject
from core.technique import OneShot
from core.techniques.architecture.fresh import REFUSES
from core.techniques.parts import FEWER_HEADS, NEEDS_FULL_ATTENTION, OTHER_MIXING


class SparseQkv(OneShot):
    """Replace attention's projections with a multiplicative layer and convolutions, which have far fewer weights."""

    family = Family.ARCHITECTURE
    paper = "https://arxiv.org/abs/2111.12763"
    leaves = OTHER_MIXING
    refuses = {
        **REFUSES,
        **NEEDS_FULL_ATTENTION,
        FEWER_HEADS: "Head widths must add up to dim: put sparse_qkv before the step that prunes heads.",
    }

    n_modules: int | None = Field(
        None,
        ge=2,
        le=1024,
        description="modules that the width is divided into (S); the number of heads if empty",
        json_schema_extra={"when_empty": "as heads"},
    )

    def label(self) -> str:
        """The modules."""
        return f"{self.n_modules} modules" if self.n_modules else "a module a head"

    def check(self, subject: Subject) -> None:
        """Causal attentions with as many keys as queries, whose width the modules divide."""
        for name, attention in full_attentions(subject).items():
            _check_shape(name, attention)
            n_modules = self.n_modules or attention.heads
            if n_modules < 2 or attention.dim % n_modules:
                message = f"does not divide the width of {attention.dim} into two or more equal modules"
                remedy = f"Choose a divisor of {attention.dim} that is at least 2, such as {_divisor(attention.dim)}."
                raise SpecError.of("n_modules", n_modules, message, remedy)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention for a fresh one; rotary positions stay."""
        forget_training(subject, context, "attentions")
        generator = context.generator("sparse_qkv")
        subject.details["layers"] = layers = []
        for name, attention in full_attentions(subject).items():
            rotary = attention.rotary.base if attention.rotary is not None else None
            n_modules = self.n_modules or attention.heads
            made = SparseQkvAttention(attention.dim, attention.heads, n_modules=n_modules, rotary=rotary)
            made.initialize_(generator)
            subject.replace(name, made.to(context.device, subject.dtype).train(attention.training))
            before, after = _weights(attention), _weights(made)
            layers.append({"name": name, "modules": n_modules, "weights_before": before, "weights": after})


def _check_shape(name: str, attention: FullAttention) -> None:
    if not attention.causal:
        message = "is bidirectional, and the convolutions read only earlier tokens"
        raise SpecError.of("model.source", name, message, "Choose builtin:gpt.")
    if attention.kv_heads != attention.heads:
        message = f"has fewer key heads than query heads in {name}, which sparse_qkv does not support"
        raise SpecError.of("model.kv_heads", attention.kv_heads, message, "Leave kv_heads empty.")
    if attention.heads * attention.head_dim != attention.dim:
        message = f"of {name}, {attention.head_dim} wide, do not add up to the width of {attention.dim}"
        raise SpecError.of("model.heads", attention.heads, message, "Put sparse_qkv before the step that prunes heads.")


def _divisor(dim: int) -> int:
    """The largest divisor of `dim` up to its root: modules about as many as channels."""
    return max(math.gcd(dim, n) for n in range(1, math.isqrt(dim) + 1))


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
