"""SparseGPT: prune by second order, column by column, and update the kept weights to compensate for the pruned ones.

Paper: https://arxiv.org/abs/2301.00774. Blocks are pruned in the order of execution, each on the inputs that the
pruned blocks before it give. Kept weights may be quantized in the same pass (section 3.5). Here convolutions and layers
outside of blocks are pruned too, except embeddings and the head. The mask is chosen for 128 columns at once, as in the
paper, but for half of the columns in layers of fewer than 256 inputs. (Fewer columns make the errors of layers smaller,
but made the loss of a small language model of width 64 larger.)
"""

from pydantic import Field
from torch import nn

from core.algorithms.second_order import DAMPING, NOfM, Pattern, Unstructured
from core.algorithms.second_order_layers import SweepPlan, sweep_by_hessians
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, MASK, NM_PATTERN
from core.techniques.grid_settings import CalibratedGridSettings
from core.techniques.pruning.calibrated import CalibratedPruning


class Sparsegpt(CalibratedGridSettings, CalibratedPruning):
    """Prune with second-order information and update the kept weights; optionally quantize in the same pass."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2301.00774"
    leaves = frozenset({MASK})
    leaves_with = {"bits": frozenset({INTEGER_CODES}), "structure=n:m": frozenset({NM_PATTERN})}
    refuses = {INTEGER_CODES: "Integer codes cannot be pruned: put sparsegpt before the step that quantizes."}

    bits: int | None = Field(
        None,
        ge=2,
        le=8,
        description="bits per kept weight; not quantized if empty",
        json_schema_extra={"when_empty": "off"},
    )
    mask_columns: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="input channels per mask selection, for unstructured; depends on the layer's size if empty",
        json_schema_extra={"when_empty": "by size"},
    )
    damping: float = Field(
        DAMPING, gt=0, le=1, description="damping: share of its mean to add to the Hessian's diagonal"
    )
    sequential: bool = Field(False, description="recompute inputs after each group of layers in a block")

    def label(self) -> str:
        """The sparsity or the pattern, the bits, and the range estimator where it is not min-max."""
        if self.bits is None:
            return super().label()
        return f"{super().label()} {self.bits}-bit" + (f" {self.observer}" if self.observer != "min-max" else "")

    def check(self, subject: Subject) -> None:
        """Raise SpecError if the model cannot be pruned so, or has nothing that `bits` could quantize."""
        super().check(subject)
        if self.bits is None:
            return
        if not any(isinstance(subject.model.get_submodule(name), nn.Linear) for name in self.layers(subject)):
            message = "quantizes linear layers, and this model has no linear layer to prune"
            raise SpecError.of("bits", self.bits, message, "Leave bits empty.")
        if self.structure == "n:m" and self.granularity == "group" and self.group_size % self.m:
            message = f"is not a multiple of m, which is {self.m}"
            raise SpecError.of("group_size", self.group_size, message, f"Choose a multiple of {self.m}.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Prune block by block."""
        unstructured = self.structure == "unstructured"
        pattern: Pattern = Unstructured(self.sparsity, self.mask_columns) if unstructured else NOfM(self.n, self.m)
        scheme = None if self.bits is None else self.scheme(self.bits)
        plan = SweepPlan(pattern, scheme, damping=self.damping, sequential=self.sequential)
        layers = self.layers(subject)
        subject.details["layers"] = sweep_by_hessians(subject, context, layers, self.calibration_examples, plan)
