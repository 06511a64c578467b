"""Sparse FF: of every block of hidden units, a low-rank controller chooses the one that a token computes.

Paper: https://arxiv.org/abs/2111.12763 (Scaling Transformers, section 3.1); noise, shares and initial weights are those
of its authors' code. A dense network's weights cannot be taken over, since its hidden units all add up: the weights
are drawn anew, and the model is trained after this step. Later steps that prune or quantize linears leave these
weights as they are. The authors' variant that multiplies with the controller's output is not built.
"""

import math

from pydantic import Field

from core.algorithms.module_swapping import dense_ffns, forget_training
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.ffn.mlp import Mlp
from core.nn.ffn.sparse_ffn import SparseFfnTechnique as SparseFfnModule
from core.subject import Subject
from core.technique import OneShot
from core.techniques.architecture.fresh import REFUSES
from core.techniques.parts import NEEDS_DENSE_FFN, NO_DENSE_FFN


class SparseFfnTechnique(OneShot):
    """Replace feed-forward networks with ones that compute one hidden unit per block, for faster decoding."""

    family = Family.ARCHITECTURE
    paper = "https://arxiv.org/abs/2111.12763"
    leaves = frozenset({NO_DENSE_FFN})
    refuses = REFUSES | NEEDS_DENSE_FFN

    block_size: int = Field(
        64, ge=2, le=4096, description="hidden units per block (N); each token computes one of them"
    )
    rank: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="rank of the controller; the number of blocks if empty",
        json_schema_extra={"when_empty": "as blocks"},
    )
    quant_prob: float = Field(0.3, ge=0, le=1, description="share of training batches with hard, sampled masks")
    temperature: float = Field(0.1, ge=0, le=10, description="scale of the Gumbel noise when sampling hard masks")

    def label(self) -> str:
        """How many units are computed."""
        return f"1 of {self.block_size} units"

    def check(self, subject: Subject) -> None:
        """Feed-forward networks of two layers, whose hidden width the blocks divide."""
        for name, ffn in dense_ffns(subject).items():
            if not isinstance(ffn, Mlp):
                message = "is gated, but the technique needs a network of two layers"
                raise SpecError.of("model.ffn", name, message, "Set ffn: mlp.")
            hidden = ffn.up.out_features
            if hidden % self.block_size:
                message = f"does not divide the {hidden} hidden units of {name}"
                remedy = f"Choose {math.gcd(hidden, self.block_size)}, or a model whose ffn_ratio * dim it divides."
                raise SpecError.of("block_size", self.block_size, message, remedy)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every feed-forward network for a fresh sparse one of the same hidden width."""
        forget_training(subject, context, "feed-forward networks")
        generator = context.generator("sparse_ffn")
        subject.details["layers"] = layers = []
        for name, ffn in dense_ffns(subject).items():
            hidden = ffn.up.out_features
            n_blocks = hidden // self.block_size
            made = SparseFfnModule(
                ffn.up.in_features,
                hidden,
                block_size=self.block_size,
                rank=self.rank or n_blocks,
                quant_prob=self.quant_prob,
                temperature=self.temperature,
            )
            made.initialize_(generator)
            subject.replace(name, made.to(context.device, subject.dtype).train(ffn.training))
            layers.append({"name": name, "hidden": hidden, "computed": n_blocks, "rank": made.rank})
