"""AdaRound and BRECQ: learn for each weight whether it is rounded up or down, by the outputs of its layer or block.

Papers: https://arxiv.org/abs/2004.10568 (AdaRound: soft rounding, the regularizer, one layer at a time),
https://arxiv.org/abs/2102.05426 (BRECQ: one block at a time, errors weighted by the squared gradient of the loss).
Blocks come in the order of execution. Each is called with what the quantized blocks before it give, and learns to
answer as the unchanged model does. Embeddings keep their precision, and so does the head unless it is included.
Here the two terms of the loss are made independent of a layer's size and scale (`core.algorithms.reconstruction`), the
examples of a minibatch stay together, and rounding to nearest is kept where learning made the error larger.
"""

from functools import partial
from typing import Literal

from pydantic import Field

from core.algorithms.reconstruction.blockwise import reconstruct
from core.algorithms.reconstruction.learning import Plan
from core.algorithms.reconstruction.soft_rounding import learn_soft_rounding
from core.context import Context
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.subject import Subject
from core.techniques.quantization.layers import quantizable
from core.techniques.quantization.learned_rounding import LearnedRounding

WAY = 50.0  # what all steps come to: V reaches a code, 2.4 from the middle, many times over (papers: 20)
FASTEST = 0.3


class Adaround(LearnedRounding):
    """Learn which way to round each weight, so that the outputs of blocks or layers change least."""

    paper = "https://arxiv.org/abs/2004.10568"

    unit: Literal["block", "layer"] = Field("block", description="what is reconstructed at once")
    loss: Literal["mse", "fisher"] = Field(
        "mse", description="weights of the errors of a block's outputs: all equal, or by the task's loss"
    )
    iterations: int = Field(1000, ge=1, le=100_000, description="updates of each block or layer")
    batch_size: int = Field(16, ge=1, le=1024, description="calibration examples an update")
    calibration_examples: int = Field(256, ge=1, le=100_000, description="number of calibration examples")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="learning rate of Adam; 50 / iterations, at most 0.3, if empty",
        json_schema_extra={"when_empty": "by iterations"},
    )
    regularization: float = Field(
        100.0,
        gt=0,
        le=10_000,
        description="strength of the pull to whole codes, relative to the error of rounding to nearest",
    )

    def label(self) -> str:
        """The grid, and the unit and loss where they are not the defaults."""
        more = [value for value in (self.unit, self.loss) if value in ("layer", "fisher")]
        return " ".join([super().label(), *more])

    def check(self, subject: Subject) -> None:
        """Raise SpecError unless the model has linear layers that are not quantized yet, in blocks for `fisher`."""
        super().check(subject)
        if self.loss == "mse":
            return
        if self.unit == "layer":
            message = "weights the outputs of blocks, and unit is layer"
            raise SpecError.of("loss", self.loss, message, "Choose unit: block, or loss: mse.")
        if not anatomy(subject.model).chain:
            message = "weights the outputs of blocks, and this model's are not known to Slimboard"
            raise SpecError.of("loss", self.loss, message, "Choose loss: mse.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Replace the layers by packed ones, block by block; pruned weights stay exactly zero."""
        plan = Plan(
            self.scheme(self.bits),
            self.calibration_examples,
            self.batch_size,
            self.iterations,
            by_layer=self.unit == "layer",
            loss=subject.task.loss if self.loss == "fisher" else None,
        )
        rate = self.learning_rate or min(FASTEST, WAY / self.iterations)
        learn = partial(learn_soft_rounding, learning_rate=rate, strength=self.regularization)
        names = quantizable(subject, self.include_head, self.skip)
        subject.details["layers"] = reconstruct(subject, context, names, plan, learn)
