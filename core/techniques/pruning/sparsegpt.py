"""SparseGPT: prune by second order, column by column, and let the weights that stay make up for those that go.

Paper: https://arxiv.org/abs/2301.00774. Blocks are pruned in the order of execution, each by the inputs that the pruned
ones before it give; kept weights may be quantized in the same pass (section 3.5). Here also for convolutions and
for layers outside of blocks, the embeddings and the head excepted. The mask is chosen for 128 columns at once, as in
the paper, but in layers of fewer than 256 inputs for half of them. (Fewer still make the layers' errors smaller; the
loss of a small language model, 64 wide, then grew.)
"""

from typing import Literal

from pydantic import Field
from torch import nn

from core.algorithms.second_order import DAMPING, NOfM, Pattern, Unstructured
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, MASK, NM_PATTERN
from core.techniques.pruning.calibrated import CalibratedPruning
from core.techniques.pruning.sparsegpt_layers import Grids, prune_by_hessians


class Sparsegpt(CalibratedPruning):
    """Prune by second order and let the kept weights make up for it; quantize them in the same pass if asked."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2301.00774"
    leaves = frozenset({MASK})
    leaves_with = {"bits": frozenset({INTEGER_CODES}), "structure=n:m": frozenset({NM_PATTERN})}
    refuses = {INTEGER_CODES: "Integer codes cannot be pruned: put sparsegpt before the step that quantizes."}

    mask_columns: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="inputs whose mask is chosen at once, where unstructured; by size if empty",
        json_schema_extra={"when_empty": "by size"},
    )
    damping: float = Field(DAMPING, gt=0, le=1, description="share of its mean that is added to the Hessian's diagonal")
    sequential: bool = Field(False, description="take inputs anew after each group of layers, not only each block")
    bits: int | None = Field(
        None,
        ge=2,
        le=8,
        description="bits of a kept weight; not quantized if empty",
        json_schema_extra={"when_empty": "off"},
    )
    granularity: Literal["channel", "group"] = Field("channel", description="what shares a scale, where quantized")
    group_size: int = Field(128, ge=8, le=4096, description="inputs that share a scale, where granularity is group")
    symmetric: bool = Field(True, description="levels symmetric about zero; affine ones fit skewed weights")

    def label(self) -> str:
        """The share or the pattern, and the bits."""
        return super().label() + (f" {self.bits}-bit" if self.bits is not None else "")

    def check(self, subject: Subject) -> None:
        """As for all, and what is to be quantized can be."""
        super().check(subject)
        if self.bits is None:
            return
        if not any(isinstance(subject.model.get_submodule(name), nn.Linear) for name in self.layers(subject)):
            message = "quantizes linear layers, of which this model has none to prune"
            raise SpecError.of("bits", self.bits, message, "Leave bits empty.")
        if self.structure == "n:m" and self.granularity == "group" and self.group_size % self.m:
            message = f"does not consist of whole groups of {self.m}"
            raise SpecError.of("group_size", self.group_size, message, f"Choose a multiple of {self.m}.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Prune block after block."""
        unstructured = self.structure == "unstructured"
        pattern: Pattern = Unstructured(self.sparsity, self.mask_columns) if unstructured else NOfM(self.n, self.m)
        subject.details["layers"] = prune_by_hessians(
            subject,
            context,
            self.layers(subject),
            self.calibration_examples,
            pattern,
            damping=self.damping,
            sequential=self.sequential,
            grids=self._grids(),
        )

    def _grids(self) -> Grids | None:
        if self.bits is None:
            return None
        return Grids(self.bits, self.symmetric, self.group_size if self.granularity == "group" else None)
