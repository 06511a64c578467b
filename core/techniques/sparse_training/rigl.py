"""RigL: sparse from the first update to the last; now and then the smallest weights make room for others.

Paper: https://arxiv.org/abs/1911.11134. Every few updates each layer drops its smallest active weights and grows as
many where the dense gradient is largest; the share falls along a cosine to zero. As in the authors' code, a dropped
weight may grow again at once and then keeps its value; the others start at zero, without momentum. Here an update
that changes the masks also makes its optimizer step (there it is left out), so that grown weights move in it. Growing
at random is SET (https://arxiv.org/abs/1707.04780); growing nothing is static sparse training. With AdamW a grown
weight's averages start at zero though the layer's count of updates does not, so its first steps are larger, up to six
times the learning rate.
"""

import math
from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from core.algorithms.masks import keep_largest, sparsity_by_layer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, KEPT_WEIGHTS, MASK, TrainingMethod, Update
from core.techniques.sparse_training.active_sets import clear_state, sparse_weights, take_masks_over
from core.techniques.sparse_training.density import active_counts


def drop_and_grow(weight: Tensor, active: Tensor, growth: Tensor, n_changed: int) -> Tensor:
    """The next mask: without the `n_changed` smallest active weights, with as many others of the largest `growth`.

    All are shaped like `weight`. As many weights are active as before.
    """
    n_kept = int(active.sum()) - n_changed
    kept = keep_largest(weight.abs().masked_fill(~active, -1.0), n_kept)
    grown = keep_largest(growth.abs().masked_fill(kept, -1.0), n_changed)
    return kept | grown


def cosine_share(progress: float, initial: float) -> float:
    """Share of the active weights that is replaced, once this share of the schedule is over."""
    return initial / 2 * (1 + math.cos(math.pi * progress))


class Rigl(TrainingMethod):
    """Train a sparse network: drop the smallest weights and regrow where the gradient is largest."""

    family = Family.SPARSE_TRAINING
    paper = "https://arxiv.org/abs/1911.11134"
    leaves = frozenset({MASK})
    decides = frozenset({KEPT_WEIGHTS})
    refuses = {INTEGER_CODES: "Integer codes have no gradient: put rigl before the step that quantizes."}

    sparsity: float = Field(0.9, gt=0, lt=1, description="share of zero weights throughout the training")
    distribution: Literal["erk", "uniform"] = Field(
        "erk", description="erk: wide layers are sparser than narrow ones; uniform: all layers are equally sparse"
    )
    grow: Literal["gradient", "random", "none"] = Field(
        "gradient", description="gradient: RigL; random: SET; none: the mask does not change"
    )
    drop_fraction: float = Field(0.3, gt=0, lt=1, description="initial share of active weights to replace")
    update_every: int = Field(20, ge=1, description="updates between mask changes; the paper: 100 of 32,000")
    stop: float = Field(0.75, gt=0, le=1, description="share of the updates after which masks stay fixed")
    dense_ends: bool = Field(False, description="keep the model's first and last layer dense")

    _subject: Subject = PrivateAttr()
    _context: Context = PrivateAttr()
    _names: list[str] = PrivateAttr(default_factory=list)
    _never: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # weights that were in no mask yet

    def label(self) -> str:
        """Sparsity, its distribution, and the growth criterion if it is not RigL's."""
        distribution = {"erk": "ERK", "uniform": "uniform"}[self.distribution]
        other = {"gradient": "", "random": " SET", "none": " static"}[self.grow]
        return f"{100 * self.sparsity:g} % {distribution}{other}"

    def check(self, subject: Subject) -> None:
        """Every layer keeps at least one weight."""
        weights = sparse_weights(subject.model, dense_ends=self.dense_ends)
        for name, count in self._counts(weights).items():
            if not count:
                message = f"leaves none of the {weights[name].numel()} weights of {name.removesuffix('.weight')}"
                raise SpecError.of("sparsity", self.sparsity, message, "Choose less, or distribution: erk.")

    def begin(self, subject: Subject, context: Context) -> None:
        """Draw the first masks at random; they replace those of earlier steps."""
        self._subject, self._context = subject, context
        weights = sparse_weights(subject.model, dense_ends=self.dense_ends)
        self._names, self._never = list(weights), {}
        take_masks_over(subject, context, self._names, self.sparsity)
        for name, count in self._counts(weights).items():
            mask = keep_largest(self._chance(f"first mask of {name}", weights[name]), count)
            subject.constrain(name, mask=mask)
            self._never[name] = ~mask

    @torch.no_grad()
    def before_optimizer(self, update: Update) -> None:
        """Drop and grow, every few updates; the gradient is still dense."""
        end = self.stop * update.total
        if self.grow == "none" or update.index == 0 or update.index % self.update_every or update.index >= end:
            return
        share = cosine_share(update.index / end, self.drop_fraction)
        n_flipped = sum(self._change(name, share, update) for name in self._names)
        n_weights = sum(never.numel() for never in self._never.values())
        n_never = sum(int(never.sum()) for never in self._never.values())
        self._context.record.curve("mask churn", update.index, n_flipped / n_weights)
        self._context.record.curve("share ever active", update.index, (n_weights - n_never) / n_weights)

    def state_dict(self) -> dict[str, Any]:
        """Which weights were never active; the masks are the subject's."""
        return {"never": self._never}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self._never = {name: never.to(self._context.device) for name, never in state["never"].items()}

    def end(self, subject: Subject) -> None:
        """The masks are the subject's already."""
        self._never = {}
        subject.details["layers"] = sparsity_by_layer(subject)

    def _counts(self, weights: dict[str, torch.nn.Parameter]) -> dict[str, int]:
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        return active_counts(shapes, 1 - self.sparsity, self.distribution)

    def _change(self, name: str, share: float, update: Update) -> int:
        """Change one layer's mask; how many of its bits flipped."""
        weight, old = self._subject.model.get_parameter(name), self._subject.mask(name)
        assert old is not None
        if weight.grad is None:
            return 0  # this update's loss does not depend on the layer
        growth = weight.grad if self.grow == "gradient" else self._chance(f"growth of {name} at {update.index}", weight)
        new = drop_and_grow(weight, old, growth, round(share * int(old.sum())))
        self._subject.constrain(name, mask=new)
        clear_state(update.optimizer, weight, ~(old & new))
        self._never[name] &= ~new
        return int((old ^ new).sum())

    def _chance(self, purpose: str, weight: Tensor) -> Tensor:
        return torch.rand(weight.shape, generator=self._context.generator(purpose)).to(weight.device)
