"""AutoRound (SignRound): learn rounding offsets and the ends of each grid by the signs of their gradients.

Paper: https://arxiv.org/abs/2309.05516; the budgets are those of intel/auto-round: 50, 200 or 1000 updates, of 8
examples each.
Blocks come in the order of execution. Each is called with what the quantized blocks before it give, and learns to
answer as the unchanged model does, by mean squared error. The learning rate decays linearly to 0. Embeddings keep their
precision, and so does the head unless it is included.
Here the grid that learning begins with is that of the range estimator, and the best iteration is found on all
calibration data, so that its error there is never larger than that of rounding to nearest.
"""

from functools import partial
from typing import Literal, NamedTuple

from pydantic import Field

from core.algorithms.reconstruction.blockwise import reconstruct
from core.algorithms.reconstruction.learning import Plan
from core.algorithms.reconstruction.sign_rounding import learn_offsets
from core.context import Context
from core.subject import Subject
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.learned_rounding import LearnedRounding


class Budget(NamedTuple):
    """What a budget stands for."""

    iterations: int
    learning_rate: float
    examples: int


BUDGETS = {
    "light": Budget(50, 5e-3, 128),
    "default": Budget(200, 1 / 200, 128),
    "best": Budget(1000, 1 / 1000, 512),
}


class Autoround(LearnedRounding):
    """Learn rounding offsets and clipping by signed gradients, so that the outputs of blocks change least."""

    paper = "https://arxiv.org/abs/2309.05516"

    budget: Literal["light", "default", "best"] = Field(
        "default",
        description="50, 200 or 1000 updates of each block, with 128, 128 or 512 calibration examples",
    )
    iterations: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="updates of each block; as the budget says if empty",
        json_schema_extra={"when_empty": "by budget"},
    )
    calibration_examples: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="number of calibration examples; as the budget says if empty",
        json_schema_extra={"when_empty": "by budget"},
    )
    batch_size: int = Field(8, ge=1, le=1024, description="calibration examples an update")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="first step of an offset; 1 / iterations if empty, and 0.005 for light",
        json_schema_extra={"when_empty": "by budget"},
    )
    learn_range: bool = Field(True, description="also learn the ends of each grid")

    def label(self) -> str:
        """The grid and the budget."""
        return f"{super().label()} {self.budget}"

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones, block by block; pruned weights stay exactly zero."""
        budget = BUDGETS[self.budget]
        iterations = self.iterations or budget.iterations
        examples = self.calibration_examples or budget.examples
        plan = Plan(self.scheme(self.bits), examples, self.batch_size, iterations)
        rate = self.learning_rate or (budget.learning_rate if self.iterations is None else 1 / iterations)
        learn = partial(learn_offsets, learning_rate=rate, learn_range=self.learn_range)
        names = quantizable(subject, self.include_head, self.skip)
        subject.details["layers"] = reconstruct(subject, context, names, plan, learn)
