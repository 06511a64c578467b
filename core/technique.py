"""The base classes of techniques: typed settings, and one of two ways to change a subject.

A technique's pydantic fields are its settings; their ranges and descriptions become the form, the
validation and the documentation. `OneShot` is a step of a recipe, `TrainingMethod` runs inside a training.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from core.families import Family as Family  # technique files take it from here
from core.spec.labels import changed_settings

if TYPE_CHECKING:
    from core.context import Context
    from core.subject import Subject


MASK = "a mask"
NM_PATTERN = "an N:M pattern"
INTEGER_CODES = "integer codes"
QUANTIZED_ACTIVATIONS = "quantized activations"
LOW_RANK = "low-rank factors"
ROTATED_STREAM = "a rotated residual stream"
ROTATED_INPUTS = "layers that rotate their inputs"
REDUCED_TOKENS = "blocks that reduce tokens"
SENSITIVITY = "a sensitivity table"

CALIBRATION_EXAMPLES = "calibration_examples"
KEPT_WEIGHTS = "which weights are kept"
BLOCKS = "what the blocks consist of"


class Technique(BaseModel):
    """One named method with typed settings; its name is its key in the catalogue."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=False)

    family: ClassVar[Family]
    paper: ClassVar[str]  # where it is published
    requires: ClassVar[frozenset[str]] = frozenset()  # what a worker must provide: "cuda", ...
    compresses: ClassVar[bool] = True  # False: a stage may still serve as the reference
    changes: ClassVar[bool] = True  # False: it measures the model, and leaves it as it is
    limits_length: ClassVar[bool] = False  # True: what it swaps in refuses texts longer than the model's `length`
    leaves: ClassVar[frozenset[str]] = frozenset()  # what later steps find: MASK, INTEGER_CODES, ...
    leaves_with: ClassVar[Mapping[str, frozenset[str]]] = {}  # what more with "setting" given, or with "setting=value"
    follows: ClassVar[Mapping[str, str]] = {}  # what the step directly before must leave, with the remedy
    refuses: ClassVar[Mapping[str, str]] = {}  # of what earlier steps left, with the remedy
    refuses_with: ClassVar[Mapping[str, Mapping[str, str]]] = {}  # what more, as in `leaves_with`

    def check(self, subject: "Subject") -> None:
        """Raise SpecError if this subject (with models on the meta device) is incompatible with the technique.

        Fields in the error are relative to the step, such as `n` or `rank`; the pipeline adds its position.
        """

    @classmethod
    def calibrates(cls) -> bool:
        """Whether it draws calibration examples, as many as its setting of that name says."""
        return CALIBRATION_EXAMPLES in cls.model_fields

    def label(self) -> str:
        """A short label for charts: the settings that distinguish this step from others of the technique."""
        return changed_settings(self)


class OneShot(Technique):
    """A step of a recipe: changes the subject at once, with calibration batches if it needs them."""

    def apply(self, subject: "Subject", context: "Context") -> None:
        """Change `subject` in place."""
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True)
class Update:
    """One update of the optimizer: its index, their total number, and the optimizer."""

    index: int  # 0-based
    total: int
    optimizer: torch.optim.Optimizer
    learning_rate: float


@dataclass
class Losses:
    """The terms that a method adds to a batch's loss, by name, and the weight of the task's own loss."""

    terms: dict[str, Tensor] = field(default_factory=dict)  # scalars; summed into the loss and drawn as curves
    task_weight: float = 1.0  # the weights of several methods multiply


class TrainingMethod(Technique):
    """A method inside a training. Every hook is optional; its state is in private attributes.

    The training calls `begin`, then per update: `batch`, `losses` (after the forward pass; gradients
    flow), `before_optimizer` (gradients are unscaled and not yet clipped), `after_optimizer`; then `end`.
    """

    accepts: ClassVar[frozenset[str]] = frozenset()  # what its training then need not refuse of earlier steps
    decides: ClassVar[frozenset[str]] = frozenset()  # what two methods of one training cannot both: KEPT_WEIGHTS, ...

    def begin(self, subject: "Subject", context: "Context") -> None:
        """Prepare the subject: register parametrizations, load a teacher, add parameters."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Own parameters as optimizer groups (`lr`, `weight_decay`, `maximize` for ascent)."""
        return []

    def taps(self) -> Iterable[str]:
        """Full names of the modules whose outputs `losses` needs."""
        return ()

    def batch(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch to train on: the given one, or another (on-policy data)."""
        return batch

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """Additional loss terms of this batch."""
        return Losses()

    def before_optimizer(self, update: Update) -> None:
        """Change the gradients."""

    def after_optimizer(self, update: Update) -> None:
        """Change the weights."""

    def state_dict(self) -> dict[str, Any]:
        """State to resume with (tensors and plain numbers)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state; called after `begin`."""

    def end(self, subject: "Subject") -> None:
        """Restore a plain subject: fold parametrizations, set constraints."""


def linears(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Every dense linear layer with its full name."""
    return [(name, m) for name, m in module.named_modules() if type(m) is nn.Linear]
