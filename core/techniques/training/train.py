"""Train: gradient descent on the task's loss, with any number of methods taking part.

The optimizer's defaults are those of AdamW (https://arxiv.org/abs/1711.05101): decay apart from the
gradient, none on vectors (norms, biases), linear warm-up and a cosine down to zero. A 16-bit model is trained through
float32 master weights (https://arxiv.org/abs/1710.03740), and saved in its own dtype.
"""

from typing import Any, Literal

from pydantic import Field, field_validator

from core.context import Context
from core.errors import SpecError
from core.nn.replacement import Replacement
from core.spec.model import StepSpec
from core.subject import Subject
from core.tasks.base import require_loss
from core.technique import INTEGER_CODES, Family, OneShot, TrainingMethod
from core.training.loop import Plan, Training


class Train(OneShot):
    """Train the model on the task, with methods that prune, distil or quantize during training."""

    family = Family.TRAINING
    paper = "https://arxiv.org/abs/1711.05101"
    compresses = False  # its methods may
    refuses = {
        INTEGER_CODES: "Integer codes have no gradient: put train before the step that quantizes.",
    }

    steps: int = Field(500, ge=1, le=10_000_000, description="number of optimizer updates")
    batch_size: int = Field(64, ge=1, le=65_536, description="examples per update (windows for text)")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum")
    learning_rate: float = Field(1e-3, gt=0, le=100, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, le=10, description="weight decay of matrices; vectors have none")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum")
    warmup: float = Field(
        0.05, ge=0, le=1, description="share of the updates in which the learning rate rises from zero"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="how the learning rate falls after warmup"
    )
    clip_norm: float = Field(1.0, ge=0, description="maximum norm of the gradient; 0: no clipping")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of the forward pass; weights and optimizer state are always float32"
    )
    evaluations: int = Field(5, ge=0, le=1000, description="how often to compute the validation score")
    methods: list[Any] = Field(
        default=[], description="training methods to apply", json_schema_extra={"role": "methods"}
    )

    @field_validator("methods")
    @classmethod
    def _parse_methods(cls, value: list[Any]) -> list[Any]:
        return [StepSpec.model_validate(item).model_dump() for item in value]

    def bound_methods(self) -> list[TrainingMethod]:
        """The methods as techniques; raises SpecError if one is unknown or no training method."""
        from core.techniques.catalogue import technique  # the catalogue lists this very class

        bound = []
        for index, item in enumerate(self.methods):
            method = technique(StepSpec.model_validate(item), f"methods[{index}]")
            if not isinstance(method, TrainingMethod):
                name = next(iter(item))
                raise SpecError.of(
                    f"methods[{index}]", name, "is a step, not a training method", "Add it to the recipe as a step."
                )
            bound.append(method)
        return bound

    def label(self) -> str:
        """The methods, or the number of updates."""
        methods = " + ".join(
            f"{next(iter(item))} {method.label()}".strip()
            for item, method in zip(self.methods, self.bound_methods(), strict=True)
        )
        return methods or f"{self.steps} updates"

    def check(self, subject: Subject) -> None:
        """The task has a loss. Packed integer weights cannot be trained, unless a method trains others beside them.

        No two methods decide the same; each checks the subject itself.
        """
        require_loss(subject.task)
        keeps_codes = any(INTEGER_CODES in method.accepts for method in self.bound_methods())
        for name, module in subject.model.named_modules():
            if isinstance(module, Replacement) and module.dense() is not None and not keeps_codes:
                raise SpecError.of(
                    "train",
                    name,
                    f"is a packed {type(module).__name__}, which has no gradient",
                    "Put train before the step that packs the weights.",
                )
        deciding: dict[str, str] = {}  # what is decided -> the method that does
        for index, method in enumerate(self.bound_methods()):
            name = next(iter(self.methods[index]))
            for what in sorted(method.decides & deciding.keys()):
                message = f"decides {what}, as does {deciding[what]} in the same training"
                raise SpecError.of(f"methods[{index}]", name, message, "Use two train steps, one for each.")
            deciding |= dict.fromkeys(method.decides, name)
            try:
                method.check(subject)
            except SpecError as error:
                raise error.at(f"methods[{index}].{name}") from error

    def apply(self, subject: Subject, context: Context) -> None:
        """Train in place; resumes from the context's checkpoint if there is one."""
        plan = Plan(**{name: getattr(self, name) for name in Plan.__dataclass_fields__})
        methods = self.bound_methods()
        training = Training(subject, context, plan, methods)
        training.load()
        training.run()
        subject.trained = True
        subject.compressed |= any(method.compresses for method in methods)
