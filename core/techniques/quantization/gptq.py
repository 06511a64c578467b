"""GPTQ: round column by column, and let the columns that follow make up for each error.

Paper: https://arxiv.org/abs/2210.17323. Blocks are quantized in the order of execution, each on the inputs that the
quantized blocks before it give. Here experts are quantized too, each on its own tokens. With `act_order`, columns come
by falling mean square of their inputs, as in the authors' code; the scales of all groups are then fitted beforehand, so
that a group is still consecutive inputs and any kernel can read it. Where the Hessian is not positive definite, damping
is raised up to 1000 times; if that does not help, the matrix is rounded to nearest, and the log says so.
"""

from typing import Literal

from pydantic import Field

from core.algorithms.second_order import DAMPING
from core.algorithms.second_order_layers import SweepPlan, sweep_by_hessians
from core.context import Context
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, OneShot
from core.techniques.grid_settings import CalibratedGridSettings
from core.techniques.quantization.layers import quantizable


class Gptq(OneShot, CalibratedGridSettings):
    """Round weights with second-order information, so that later weights make up for the errors of earlier ones."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2210.17323"
    leaves = frozenset({INTEGER_CODES})
    refuses = {INTEGER_CODES: "Keep one of the two quantization steps."}

    bits: int = Field(4, ge=2, le=8, description="bits per weight")
    granularity: Literal["channel", "group"] = Field(
        "group", description="weights that share a scale: an output channel's, or a group's"
    )
    calibration_examples: int = Field(128, ge=1, le=100_000, description="number of calibration examples")
    act_order: bool = Field(
        True, description="round the weights of the largest inputs first; scales are then fitted before the sweep"
    )
    static_groups: bool = Field(
        False, description="fit the scales of groups to the original weights, not to the updated ones"
    )
    damping: float = Field(
        DAMPING, gt=0, le=1, description="damping: share of its mean to add to the Hessian's diagonal"
    )
    sequential: bool = Field(False, description="recompute inputs after each group of layers in a block")
    include_head: bool = Field(False, description="also quantize the output layer")
    skip: list[str] = Field(default_factory=list, description="names of layers to skip; * matches anything")

    def label(self) -> str:
        """What the grid is."""
        return self.grid_label()

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet."""
        quantizable(subject, self.include_head, self.skip)

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones, block by block; pruned weights stay exactly zero."""
        names = quantizable(subject, self.include_head, self.skip)
        plan = SweepPlan(
            scheme=self.scheme(self.bits),
            static_groups=self.static_groups,
            act_order=self.act_order,
            damping=self.damping,
            sequential=self.sequential,
        )
        subject.details["layers"] = sweep_by_hessians(subject, context, names, self.calibration_examples, plan)
