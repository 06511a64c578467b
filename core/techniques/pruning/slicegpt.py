"""SliceGPT: rotate the residual stream into its principal components and cut off the least of them.

Paper: https://arxiv.org/abs/2401.15024. Norms are folded into the layers after them, a tied head is untied, and
between two norms the stream is turned by a matrix that is stored and counted. Every signal keeps the same width, a
multiple of 8; its directions are found on what the part already sliced gives, padding left out. For Vision
Transformers and text classifiers too.
"""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from core.algorithms.master_weights import in_float32
from core.algorithms.residual_basis import require_head, untie_
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.residual import Residual, residual
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, MASK, REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.parts import NEEDS_BOTH_HALVES, NEEDS_PLAIN_HEAD
from core.techniques.pruning.slicing import Slicing

MULTIPLE = 8


def kept_width(width: int, slicing: float) -> int:
    """The largest multiple of 8 that leaves out at least the share `slicing` of the width."""
    return int((1 - slicing) * width + 1e-9) // MULTIPLE * MULTIPLE


class Slicegpt(OneShot):
    """Rotate the residual stream into its principal components and remove the smallest ones."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2401.15024"
    leaves = frozenset({ROTATED_STREAM})
    refuses = {
        **NEEDS_BOTH_HALVES,
        **NEEDS_PLAIN_HEAD,
        REDUCED_TOKENS: "Blocks that reduce tokens call their parts directly: remove one of the two steps.",
        MASK: "Rotating makes pruned weights nonzero again: put slicegpt before the step that prunes weights.",
        INTEGER_CODES: "Integer codes cannot be rotated: put slicegpt before the step that quantizes.",
        LOW_RANK: "Factors are not rotated: put slicegpt before the step that factors.",
        ROTATED_STREAM: "The stream is rotated already: slice once, by as much as both steps, or remove rotation.",
    }

    slicing: float = Field(0.25, gt=0, lt=1, description="share of the residual stream's width to remove")
    calibration_examples: int = Field(
        128, ge=1, le=65_536, description="number of calibration examples for the principal components"
    )

    def label(self) -> str:
        """The share."""
        return f"{100 * self.slicing:g} %"

    def check(self, subject: Subject) -> None:
        """The stream is known, nothing in it is masked, and some of it remains."""
        width = residual(subject.model).width
        masked = next(iter(subject.constraints), None)
        if masked is not None:
            raise SpecError.of("slicegpt", masked.removeprefix("main."), "is pruned", self.refuses[MASK])
        if kept_width(width, self.slicing) < MULTIPLE:
            message = f"leaves fewer than {MULTIPLE} of the residual stream's {width} channels"
            raise SpecError.of("slicing", self.slicing, message, "Slice less.")
        require_head(subject)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Rotate and cut."""
        self.check(subject)
        stream = residual(subject.model)
        kept = kept_width(stream.width, self.slicing)
        before = _n_weights(subject.model)
        untie_(subject)
        with in_float32(subject.model):
            subject.details["layers"] = self._slice(subject, stream, kept, context)
        after = _n_weights(subject.model)
        if after >= before:
            message = f"the model grew from {before:,} to {after:,} weights: matrices on skips outweigh the savings"
            context.record.event("warning", message)

    def _slice(self, subject: Subject, stream: Residual, kept: int, context: Context) -> list[dict[str, Any]]:
        batches = list(context.calibration(self.calibration_examples))
        slicing = Slicing(subject, stream, kept, batches, context.device)
        if slicing.n_tokens < stream.width:
            message = f"{slicing.n_tokens} calibration tokens do not determine all {stream.width} directions"
            context.record.event("warning", f"{message}: raise calibration_examples")
        rows: list[dict[str, Any]] = []
        for basis in slicing.run():
            context.record.progress(len(rows) / (2 * len(stream.blocks) + 1), basis.name)
            rows.append({"name": basis.name, "width": kept, "of": stream.width, "variance kept": basis.variance})
        return rows


def _n_weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
