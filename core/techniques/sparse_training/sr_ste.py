"""SR-STE: train N:M sparse weights from dense ones whose mask is chosen anew at every update.

Paper: https://arxiv.org/abs/2102.04010. The forward pass uses E * W, E the mask of the n largest of every m
inputs; the gradient goes straight through to all of W, and the pruned weights decay: W - lr (g + lambda (1-E) W).
lambda = 0 is the plain straight-through estimator. Here groups lie along input channels, as kernels want them (the
paper's convolutions: along the flattened kernel). With AdamW the decay may be kept apart from the gradient
(`decoupled`), which then is not divided by its running size.
"""

from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, PrivateAttr
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.algorithms.masks import check_pattern, divisible_weights, nm_mask, sparsity_by_layer
from core.context import Context
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, KEPT_WEIGHTS, MASK, NM_PATTERN, TrainingMethod, Update
from core.techniques.sparse_training.active_sets import take_masks_over


class StraightThrough(torch.autograd.Function):
    """weight * mask, with the gradient of the product for all of the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class NmMasked(nn.Module):
    """Parametrization of a weight: applies its n:m mask, computed from the current weight."""

    def __init__(self, n: int, m: int):
        super().__init__()
        self.n = n
        self.m = m
        self.mask: Tensor | None = None  # of the last forward pass

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with exactly n of every m kept."""
        self.mask = nm_mask(weight.detach().abs(), self.n, self.m)
        return StraightThrough.apply(weight, self.mask)


class SrSte(TrainingMethod):
    """Train with an n:m mask that is recomputed from the weights; pruned weights decay towards zero."""

    model_config = ConfigDict(populate_by_name=True)

    family = Family.SPARSE_TRAINING
    paper = "https://arxiv.org/abs/2102.04010"
    leaves = frozenset({MASK, NM_PATTERN})
    decides = frozenset({KEPT_WEIGHTS})
    refuses = {INTEGER_CODES: "Integer codes have no gradient: put sr_ste before the step that quantizes."}

    n: int = Field(2, ge=1, le=31, description="weights kept per group")
    m: int = Field(4, ge=2, le=32, description="consecutive input channels per group")
    lambda_: float = Field(2e-4, alias="lambda", ge=0, le=10, description="decay of pruned weights; 0 gives plain STE")
    decoupled: bool = Field(False, description="apply the decay to the weight, as AdamW does, not to the gradient")
    indivisible: Literal["refuse", "skip"] = Field(
        "refuse", description="how to treat a layer whose input channels m does not divide"
    )

    _context: Context = PrivateAttr()
    _layers: dict[str, nn.Module] = PrivateAttr(default_factory=dict)  # parametrized, by full name of the weight
    _masks: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # each layer's last

    def label(self) -> str:
        """The pattern, and λ where it is not the paper's."""
        decay = "" if self.lambda_ == 2e-4 else " STE" if self.lambda_ == 0 else f" λ {self.lambda_:g}"
        return f"{self.n}:{self.m}{decay}"

    def check(self, subject: Subject) -> None:
        """n is below m, and m divides every layer's input channels."""
        check_pattern(subject.model, self.n, self.m, self.indivisible)

    def begin(self, subject: Subject, context: Context) -> None:
        """Parametrize the weights and take their masks over; masks of other weights stay enforced."""
        self._context = context
        self._masks = {}
        names = list(divisible_weights(subject.model, self.m))
        take_masks_over(subject, context, names, 1 - self.n / self.m)
        for name in names:
            module = subject.model.get_submodule(name.removesuffix(".weight"))
            self._layers[name] = parametrize.register_parametrization(module, "weight", NmMasked(self.n, self.m))

    @torch.no_grad()
    def before_optimizer(self, update: Update) -> None:
        """Decay the pruned weights, and record how many mask bits flipped since the last update."""
        masks = {}
        for name, module in self._layers.items():
            masked, weight = self._parts(module)
            if masked.mask is None or weight.grad is None:
                continue
            masks[name] = masked.mask
            decay = self.lambda_ * (~masked.mask * weight)
            if self.decoupled:
                weight.sub_(update.learning_rate * decay)
            else:
                weight.grad.add_(decay)
        known = {name: mask for name, mask in masks.items() if name in self._masks}
        if known:
            flips = sum(int((mask ^ self._masks[name]).sum()) for name, mask in known.items())
            total = sum(mask.numel() for mask in known.values())
            self._context.record.curve("mask divergence", update.index, flips / total)
        self._masks |= masks

    def state_dict(self) -> dict[str, Any]:
        """The masks of the last update; the dense weights are the model's."""
        return {"masks": self._masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the masks up."""
        self._masks = {name: mask.to(self._context.device) for name, mask in state["masks"].items()}

    @torch.no_grad()
    def end(self, subject: Subject) -> None:
        """Leave plain weights under the mask that they have now."""
        for name, module in self._layers.items():
            mask = nm_mask(self._parts(module)[1].abs(), self.n, self.m)
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            subject.constrain(name, mask=mask)
        self._layers = {}
        subject.details["layers"] = sparsity_by_layer(subject)

    @staticmethod
    def _parts(module: nn.Module) -> tuple[NmMasked, nn.Parameter]:
        chain = module.get_submodule("parametrizations.weight")
        masked = chain.get_submodule("0")
        assert isinstance(masked, NmMasked)
        return masked, chain.get_parameter("original")
