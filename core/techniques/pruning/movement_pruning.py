"""Movement pruning: learn a score for every weight, which rises while the weight grows away from zero.

Paper: https://arxiv.org/abs/2005.07683. The forward pass uses W * M(S). Scores have the straight-through gradient
dL/dS = dL/d(W * M) * W, weights that of the product. Hard: M keeps the weights of largest score, a share that falls
from 1 along a cubic ramp. Soft: M keeps sigmoid(S) > threshold, and the mean of sigmoid(S), times lambda, is added to
the loss; threshold and lambda rise along the same ramp, as in the authors' code. There the mean is taken layer by
layer, here over all scores, so that every weight costs the same. Weights that an earlier step pruned stay pruned.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, PrivateAttr
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.algorithms.masks import keep_largest, keep_largest_together, prunable_weights, sparsity_by_layer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, KEPT_WEIGHTS, MASK, Losses, TrainingMethod, Update


class ScoredWeight(torch.autograd.Function):
    """weight * mask, where the score's gradient is as if it were the mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, mask = ctx.saved_tensors
        return gradient * mask, gradient * weight, None


class Scored(nn.Module):
    """Parametrization of a weight by its scores, which begin at zero, and by the mask chosen from them."""

    mask: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.score = nn.Parameter(torch.zeros_like(weight))
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight where the mask keeps it."""
        return ScoredWeight.apply(weight, self.score, self.mask)


def hard_masks(scores: Mapping[str, Tensor], kept: float, *, together: bool) -> dict[str, Tensor]:
    """Masks that keep the round(kept * n) weights of largest score of each layer, or of all `together`."""
    if not together:
        return {name: keep_largest(score, round(kept * score.numel())) for name, score in scores.items()}
    return keep_largest_together(scores, round(kept * sum(score.numel() for score in scores.values())))


def cubic_rise(progress: float) -> float:
    """From 0 to 1 along the ramp: fast at first, while many weights are redundant."""
    return 1 - (1 - progress) ** 3


class MovementPruning(TrainingMethod):
    """Prune during fine-tuning: remove weights that move towards zero, not those that are small."""

    model_config = ConfigDict(populate_by_name=True)

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2005.07683"
    leaves = frozenset({MASK})
    decides = frozenset({KEPT_WEIGHTS})
    refuses = {INTEGER_CODES: "Integer codes have no gradient: put movement_pruning before the step that quantizes."}

    mode: Literal["hard", "soft"] = Field(
        "hard", description="hard: a given sparsity; soft: a sparsity that depends on lambda"
    )
    sparsity: float = Field(0.85, gt=0, lt=1, description="hard: final share of zero weights")
    scope: Literal["layer", "global"] = Field(
        "layer", description="hard: rank weights within each layer, or in the whole model"
    )
    threshold: float = Field(
        0.1, gt=0, lt=0.5, description="soft: final threshold of sigmoid(score) for keeping a weight"
    )
    lambda_: float = Field(
        100.0, alias="lambda", ge=0, le=1e6, description="soft: weight of the penalty, the mean sigmoid(score)"
    )
    score_learning_rate: float = Field(1e-2, gt=0, le=100, description="peak learning rate of the scores")
    ramp_start: float = Field(0.1, ge=0, lt=1, description="share of the updates before pruning starts")
    ramp_end: float = Field(0.75, gt=0, le=1, description="share of the updates until pruning ends")

    _context: Context = PrivateAttr()
    _subject: Subject = PrivateAttr()
    _layers: dict[str, nn.Module] = PrivateAttr(default_factory=dict)  # parametrized, by full name of the weight
    _rise: float = PrivateAttr(0.0)  # of the coming update, 0..1

    def label(self) -> str:
        """The sparsity, or what settles it."""
        if self.mode == "soft":
            return f"soft λ {self.lambda_:g}"
        return f"{100 * self.sparsity:g} %" + (" global" if self.scope == "global" else "")

    def check(self, subject: Subject) -> None:
        """The model has weights to prune, every layer keeps some, and the ramp has some length."""
        weights = prunable_weights(subject.model)
        if self.ramp_start >= self.ramp_end:
            message = f"must be less than ramp_end, which is {self.ramp_end:g}"
            raise SpecError.of("ramp_start", self.ramp_start, message, "Start earlier or end later.")
        for name, weight in weights.items():
            if self.mode == "hard" and self.scope == "layer" and not round((1 - self.sparsity) * weight.numel()):
                message = f"leaves none of the {weight.numel()} weights of {name.removesuffix('.weight')}"
                raise SpecError.of("sparsity", self.sparsity, message, "Choose less, or scope: global.")

    def begin(self, subject: Subject, context: Context) -> None:
        """Give every weight a score; masks from before stay enforced."""
        self._context, self._subject = context, subject
        self._layers, self._rise = {}, 0.0
        for name, weight in prunable_weights(subject.model).items():
            module = subject.model.get_submodule(name.removesuffix(".weight"))
            self._layers[name] = parametrize.register_parametrization(module, "weight", Scored(weight.detach()))

    def param_groups(self) -> list[dict[str, Any]]:
        """The scores, at their own rate."""
        scores = [self._scored(module).score for module in self._layers.values()]
        return [{"params": scores, "lr": self.score_learning_rate, "weight_decay": 0.0}]

    def losses(self, batch: Mapping[str, Tensor], logits: Tensor, taps: Mapping[str, Tensor]) -> Losses:
        """Soft: what the scores cost."""
        if self.mode == "hard":
            return Losses()
        scores = [self._scored(module).score for module in self._layers.values()]
        total = torch.stack([score.float().sigmoid().sum() for score in scores]).sum()
        mean = total / sum(score.numel() for score in scores)
        return Losses({"score penalty": self.lambda_ * self._rise * mean})

    @torch.no_grad()
    def after_optimizer(self, update: Update) -> None:
        """Choose the masks of the next update from the scores."""
        self._rise = self._progress(update.index + 1, update.total)
        scores = {name: self._scored(module).score.detach() for name, module in self._layers.items()}
        old = {name: mask for name in scores if (mask := self._subject.mask(name)) is not None}
        chosen = self._choose({n: s.masked_fill(~old[n], -torch.inf) if n in old else s for n, s in scores.items()})
        n_flipped, n_kept = 0, 0
        for name, mask in chosen.items():
            scored = self._scored(self._layers[name])
            mask = mask & old[name] if name in old else mask
            n_flipped += int((mask ^ scored.mask).sum())
            n_kept += int(mask.sum())
            scored.mask = mask
        n_weights = sum(score.numel() for score in scores.values())
        self._context.record.curve("mask churn", update.index, n_flipped / n_weights)
        self._context.record.curve("sparsity", update.index, 1 - n_kept / n_weights)

    def state_dict(self) -> dict[str, Any]:
        """How far the ramp is; scores and masks are the model's while it is trained."""
        return {"rise": self._rise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self._rise = state["rise"]

    def end(self, subject: Subject) -> None:
        """Leave plain weights under the last masks."""
        for name, module in self._layers.items():
            mask = self._scored(module).mask
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            subject.constrain(name, mask=mask)
        self._layers = {}
        subject.details["layers"] = sparsity_by_layer(subject)

    def _progress(self, n_done: int, total: int) -> float:
        """The ramp's height once this many updates are made; it ends before the last one, which trains under it."""
        first, last = self.ramp_start * total, min(self.ramp_end * total, total - 1)
        return cubic_rise(min(max((n_done - first) / max(last - first, 1e-9), 0.0), 1.0))

    def _choose(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.mode == "hard":
            return hard_masks(scores, 1 - self._rise * self.sparsity, together=self.scope == "global")
        return {name: score.sigmoid() > self._rise * self.threshold for name, score in scores.items()}

    @staticmethod
    def _scored(module: nn.Module) -> Scored:
        scored = module.get_submodule("parametrizations.weight.0")
        assert isinstance(scored, Scored)
        return scored
