"""CoFi: learn which heads, FFN units, whole layers and channels to keep, while imitating a teacher layer by layer.

Paper: https://arxiv.org/abs/2204.00408. Every part has an L0 mask (hard concrete). A Lagrangian, lambda1 (s - t) +
lambda2 (s - t)^2 with rising multipliers, holds the expected share of removed block weights to a target that rises
linearly from 0. The teacher's logits and matched layers replace the labels. In the end the masks are settled, folded
into the weights and cut out, which leaves a plain, smaller model; train again after it.
Here heads that share keys and values (GQA) have one mask, biases are not counted, and widths end as multiples of
`round_to`. The norm of a post-norm layer that is switched off stays, and so does one silent head of its attention.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from core.algorithms.distillation import Teacher, check_answers, counted_positions, distillation_loss, teacher_field
from core.algorithms.structured.fold import fold_
from core.algorithms.structured.lagrangian import lagrangian, ramp
from core.algorithms.structured.layer_matching import TaughtLayers, outputs_of
from core.algorithms.structured.log_alphas import LogAlphas, whole
from core.algorithms.structured.structure import Masks, Structure, masked, structure_of
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.spec.model import ModelSpec
from core.subject import Subject
from core.tasks.base import logits_of, require_predictions
from core.technique import (
    BLOCKS,
    INTEGER_CODES,
    KEPT_WEIGHTS,
    LOW_RANK,
    NM_PATTERN,
    REDUCED_TOKENS,
    ROTATED_STREAM,
    Losses,
    TrainingMethod,
    Update,
)
from core.techniques.parts import FEWER_HEADS, NEEDS_BOTH_HALVES, NEEDS_PLAIN_HEAD

FAR = 0.05  # from the target: worth a warning


class Cofi(TrainingMethod):
    """Learn masks over heads, FFN units, layers and channels for a target size, then remove what is masked."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2204.00408"
    decides = frozenset({BLOCKS, KEPT_WEIGHTS})
    leaves = frozenset({FEWER_HEADS})
    refuses = {
        **NEEDS_BOTH_HALVES,
        INTEGER_CODES: "Integer codes have no gradient: put cofi before the step that quantizes.",
        LOW_RANK: "Factored layers cannot be pruned: put cofi before the step that factors.",
        NM_PATTERN: "Removing inputs shifts the groups of N:M: put the step that prunes N:M after this one.",
    }
    refuses_with = {
        "residual=True": {
            **NEEDS_PLAIN_HEAD,
            ROTATED_STREAM: "A rotated stream has no channels to prune: set residual: false, or put cofi first.",
            REDUCED_TOKENS: "Blocks that reduce tokens keep the stream's width: set residual: false.",
        }
    }

    teacher: Teacher = teacher_field()
    sparsity: float = Field(0.6, gt=0, lt=1, description="share of the blocks' weights to remove")
    residual: bool = Field(True, description="also remove channels of the residual stream")
    start: float = Field(0.05, ge=0, lt=1, description="share of the updates before masks are learned")
    rise: float = Field(0.2, ge=0, le=1, description="share of the updates in which the target sparsity rises from 0")
    mask_learning_rate: float = Field(
        0.01, gt=0, le=10, description="constant learning rate of masks and multipliers; raise it for short trainings"
    )
    temperature: float = Field(2.0, gt=0, le=100, description="temperature for the logits of student and teacher")
    layer_weight: float = Field(0.9, ge=0, le=1, description="weight of layer distillation; the logits get the rest")
    round_to: int = Field(8, ge=1, le=1024, description="kept widths are multiples of this, which kernels run faster")

    _context: Context = PrivateAttr()
    _structure: Structure = PrivateAttr()
    _alphas: LogAlphas = PrivateAttr()
    _masks: Masks = PrivateAttr()
    _hooks: ExitStack = PrivateAttr()
    _multipliers: nn.Parameter = PrivateAttr()
    _teacher: nn.Module = PrivateAttr()
    _taught: TaughtLayers = PrivateAttr()
    _progress: float = PrivateAttr(0.0)

    def label(self) -> str:
        """The target."""
        return f"{self.sparsity:.0%}{'' if self.residual else ' blocks only'}"

    def check(self, subject: Subject) -> None:
        """The model's parts are known, and masks have time to settle."""
        require_predictions(subject.task, "teacher")
        structure_of(subject.model, stream=self.residual)
        if self.start + self.rise >= 1:
            raise SpecError.of("rise", self.rise, f"ends after the training (start {self.start:g})", "Choose less.")

    def begin(self, subject: Subject, context: Context) -> None:
        """Load the teacher, make the masks and let the model be multiplied with them."""
        self._context = context
        self._structure = structure_of(subject.model, stream=self.residual)
        self._alphas = LogAlphas(self._structure, context.device, context.generator("masks"))
        self._multipliers = nn.Parameter(torch.zeros(2, device=context.device))
        self._masks = whole(self._structure, context.device)
        self._hooks = masked(subject.model, self._structure, lambda: self._masks)
        self._teacher = context.resolve(ModelSpec.model_validate(self.teacher)).eval().requires_grad_(False)
        self._taught = TaughtLayers(self._teacher, subject.model, context.device)
        if self.layer_weight and not self._taught.names:
            message = f"is a {type(self._teacher).__name__}, whose blocks are not known to Slimboard"
            raise SpecError.of("teacher", self.teacher, message, "Set layer_weight to 0, or choose a Transformer.")

    def param_groups(self) -> list[dict[str, Any]]:
        """Masks go down and multipliers up, at a rate of their own."""
        own = {"lr": self.mask_learning_rate, "weight_decay": 0.0, "constant": True}
        return [
            {"params": self._alphas.parameters(), **own},
            {"params": [self._multipliers], "maximize": True, **own},
            {"params": [self._taught.transform], "weight_decay": 0.0},
        ]

    def taps(self) -> Iterable[str]:
        """The blocks' outputs, for the layers' distillation."""
        return [block.name for block in self._structure.blocks] if self.layer_weight else []

    def batch(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Draw the masks of this update."""
        if self._learning:
            self._masks = self._alphas.sample()
        return batch

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """The teacher's terms and the Lagrangian; the labels count no more."""
        with torch.no_grad(), outputs_of(self._teacher, self._taught.names if self.layer_weight else []) as layers:
            expected = logits_of(self._teacher, dict(batch))
        check_answers(self.teacher, expected, logits)
        imitation = distillation_loss(logits, expected, self.temperature, counted_positions(batch, logits))
        terms = {"distillation": (1 - self.layer_weight) * imitation}
        if self.layer_weight:
            own = [taps[block.name] for block in self._structure.blocks]
            alive = (self._masks.attention_layers + self._masks.feed_layers > 0).tolist()
            terms["layer distillation"] = self.layer_weight * self._taught.loss(batch, own, layers, alive)
        if self._learning:
            terms["sparsity constraint"] = lagrangian(self._alphas.expected_sparsity(), self._target, self._multipliers)
        return Losses(terms, task_weight=0.0)

    def before_optimizer(self, update: Update) -> None:
        """The schedule is for the model's weights only; draw how far the masks have come."""
        for group in update.optimizer.param_groups:
            if group.get("constant"):
                group["lr"] = group["base_lr"]
        self._context.record.curve("expected sparsity", update.index, float(self._alphas.expected_sparsity().detach()))
        self._context.record.curve("target sparsity", update.index, self._target)

    def after_optimizer(self, update: Update) -> None:
        """Between updates the model is evaluated with the masks as they would be settled."""
        self._alphas.constrain_()
        self._progress = (update.index + 1) / update.total
        if self._learning:
            self._masks = self._alphas.settled(self.round_to)

    def state_dict(self) -> dict[str, Any]:
        """Masks, multipliers and the transform between layers."""
        return {
            "alphas": [own.detach() for own in self._alphas.parameters()],
            "multipliers": self._multipliers.detach(),
            "transform": self._taught.transform.detach(),
            "progress": self._progress,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up."""
        self._alphas.load(state["alphas"])
        self._progress = state["progress"]
        self._multipliers.copy_(state["multipliers"])
        self._taught.transform.copy_(state["transform"])

    def end(self, subject: Subject) -> None:
        """Fold the settled masks in and cut; let go of the teacher."""
        self._hooks.close()
        reached = float(self._alphas.expected_sparsity().detach())
        if abs(reached - self.sparsity) > FAR:
            message = f"masks reached a sparsity of {reached:.0%}, not {self.sparsity:.0%}; train longer or raise"
            self._context.record.event("warning", f"{message} mask_learning_rate ({self.mask_learning_rate:g})")
        subject.details["layers"] = fold_(subject, self._structure, self._alphas.settled(self.round_to))
        del self._teacher, self._taught

    @property
    def _learning(self) -> bool:
        return self._progress >= self.start

    @property
    def _target(self) -> float:
        return ramp(self._progress, self.start, self.rise, self.sparsity)
