"""Top-KAST: always sparse, forward with the largest weights (A), gradients for somewhat more of them (B).

Paper: https://arxiv.org/abs/2106.03517. A is the `density` share of largest magnitude, B the `density` +
`extra_density` share, C the rest, which stays bitwise as it is. An exploration loss pulls on A, and on B without A
by 1 / density as hard (squared, as the paper's text and algorithm have it, not its displayed equation); it takes the
place of weight decay. AdamW divides its gradient, like any, by its running size, and wants it stronger than the
paper's SGD (1e-4): where it is too weak, weights of B drift into A and masks churn. Where a weight leaves B, its
momentum and Adam's averages are forgotten; Adam's count of updates is the layer's, so a weight that enters B makes
larger steps at first, up to six times the learning rate.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from core.algorithms.masks import keep_largest_together, sparsity_by_layer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.subject import Subject
from core.technique import INTEGER_CODES, KEPT_WEIGHTS, MASK, TrainingMethod, Update
from core.techniques.sparse_training.active_sets import sparse_weights, take_masks_over
from core.techniques.sparse_training.top_kast_layers import MaskedLayer, SparseLayer
from core.techniques.sparse_training.top_kast_sparse_backward import SparseBackward

Sets = tuple[Tensor, Tensor]  # the masks A and B, A within B


def choose_sets(weights: Mapping[str, Tensor], density: float, extra_density: float) -> dict[str, Sets]:
    """The masks of A and B by name, of round(density * n) and round((density + extra) * n) of all n weights."""
    magnitudes = {name: weight.abs() for name, weight in weights.items()}
    n_weights = sum(weight.numel() for weight in weights.values())
    forward, backward = (
        keep_largest_together(magnitudes, round(share * n_weights)) for share in (density, density + extra_density)
    )
    return {name: (forward[name], backward[name]) for name in weights}


class TopKast(TrainingMethod):
    """Compute with the largest weights only, while gradients also update the next largest ones."""

    family = Family.SPARSE_TRAINING
    paper = "https://arxiv.org/abs/2106.03517"
    leaves = frozenset({MASK})
    decides = frozenset({KEPT_WEIGHTS})
    refuses = {INTEGER_CODES: "Integer codes have no gradient: put top_kast before the step that quantizes."}

    density: float = Field(0.2, gt=0, le=1, description="share of weights in the forward pass (set A)")
    extra_density: float = Field(
        0.3, ge=0, lt=1, description="share of further weights with gradients (set B without A)"
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="rank weights within each layer, or in the whole model"
    )
    update_every: int = Field(10, ge=1, description="updates between choices of the sets")
    exploration_strength: float = Field(
        1e-3,
        ge=0,
        le=10,
        description="weight of the exploration loss, which replaces weight decay; about 1e-4 with SGD",
    )
    exploration_stop: float = Field(1.0, ge=0, le=1, description="share of the updates after which B equals A")
    dense_ends: bool = Field(False, description="keep the model's first and last layer dense")
    backward: Literal["dense", "sparse"] = Field(
        "dense",
        description="sparse: compute and store only B's gradients, with less memory and more time (linear layers only)",
    )

    _context: Context = PrivateAttr()
    _layers: dict[str, SparseLayer] = PrivateAttr(default_factory=dict)  # by full name of the weight
    _untouched: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # of the first C, what was never in A
    _n_reservoir: int = PrivateAttr(0)  # weights of the first C

    def label(self) -> str:
        """Sparsity of the forward and of the backward pass, as the paper writes it."""
        forward, backward = 1 - self.density, 1 - self.density - self.extra_density
        return f"{100 * forward:.4g}/{abs(100 * backward):.4g}" + (" global" if self.scope == "global" else "")

    def check(self, subject: Subject) -> None:
        """The sets fit into the layers; a sparse backward pass needs linear layers."""
        if self.density + self.extra_density > 1 + 1e-9:
            message = f"and density ({self.density:g}) add up to more than 1"
            remedy = f"Choose at most {1 - self.density:.4g}."
            raise SpecError.of("extra_density", self.extra_density, message, remedy)
        weights = sparse_weights(subject.model, dense_ends=self.dense_ends)
        for name, weight in weights.items():
            if self.scope == "layer" and not round(self.density * weight.numel()):
                message = f"leaves none of the {weight.numel()} weights of {name.removesuffix('.weight')}"
                raise SpecError.of("density", self.density, message, "Choose more, or scope: global.")
        if self.backward == "sparse" and not any(_is_linear(subject.model, name) for name in weights):
            message = "computes the gradients of linear layers only, and this model has none"
            raise SpecError.of("backward", self.backward, message, "Set backward: dense.")

    @torch.no_grad()
    def begin(self, subject: Subject, context: Context) -> None:
        """Choose the sets and take the weights' masks over; masks of other weights stay enforced."""
        self._context, model = context, subject.model
        self._layers, self._untouched = {}, {}
        weights = sparse_weights(model, dense_ends=self.dense_ends)
        take_masks_over(subject, context, list(weights), 1 - self.density)
        extra = self._extra_density(0, 1)
        for names in self._competitors(list(weights)):
            sets = choose_sets({name: weights[name].detach() for name in names}, self.density, extra)
            for name, (forward, backward) in sets.items():
                self._layers[name] = self._layer(model, name.removesuffix(".weight"), forward, backward)
                self._untouched[name] = ~backward
        self._n_reservoir = sum(int(mask.sum()) for mask in self._untouched.values())

    def param_groups(self) -> list[dict[str, Any]]:
        """The weights, without decay: it would reach C; the exploration loss replaces it."""
        return [{"params": [layer.trained for layer in self._layers.values()], "weight_decay": 0.0}]

    @torch.no_grad()
    def before_optimizer(self, update: Update) -> None:
        """Add the exploration loss's gradient."""
        if self.exploration_strength:
            for layer in self._layers.values():
                layer.penalize(self.exploration_strength, self.density)

    @torch.no_grad()
    def after_optimizer(self, update: Update) -> None:
        """Choose the sets anew, every few updates and where exploration stops."""
        done = update.index + 1
        extra = self._extra_density(done, update.total)
        if done % self.update_every and extra == self._extra_density(update.index, update.total):
            return
        n_flipped = 0
        for names in self._competitors(list(self._layers)):
            weights = {name: self._layers[name].weight_of_all() for name in names}
            sets = choose_sets(weights, self.density, extra)
            for name, (forward, backward) in sets.items():
                n_flipped += int((forward ^ self._layers[name].forward_set()).sum())
                self._layers[name].choose(forward, backward, update.optimizer)
                self._untouched[name] &= ~forward
        n_weights = sum(mask.numel() for mask in self._untouched.values())
        self._context.record.curve("mask churn", update.index, n_flipped / n_weights)
        if self._n_reservoir:
            untouched = sum(int(mask.sum()) for mask in self._untouched.values())
            share = (self._n_reservoir - untouched) / self._n_reservoir
            self._context.record.curve("share of C ever activated", update.index, share)

    def state_dict(self) -> dict[str, Any]:
        """What of the first C was never activated; the sets are buffers of the model while it is trained."""
        return {"untouched": self._untouched, "n_reservoir": self._n_reservoir}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self._untouched = {name: mask.to(self._context.device) for name, mask in state["untouched"].items()}
        self._n_reservoir = state["n_reservoir"]

    def end(self, subject: Subject) -> None:
        """Leave plain layers with the weights of A, under A as their mask."""
        for name, layer in self._layers.items():
            mask = layer.forward_set()
            layer.restore(subject.model, name.removesuffix(".weight"))
            subject.constrain(name, mask=mask)
        self._layers, self._untouched = {}, {}
        subject.details["layers"] = sparsity_by_layer(subject)

    def _extra_density(self, n_done: int, total: int) -> float:
        """The share of B without A, once this many updates are made."""
        return 0.0 if n_done >= self.exploration_stop * total else self.extra_density

    def _competitors(self, names: Sequence[str]) -> list[list[str]]:
        return [list(names)] if self.scope == "global" else [[name] for name in names]

    def _layer(self, model: nn.Module, name: str, forward_set: Tensor, backward_set: Tensor) -> SparseLayer:
        module = model.get_submodule(name)
        if self.backward == "dense" or not isinstance(module, nn.Linear):
            return MaskedLayer(module, forward_set, backward_set)
        layer = SparseBackward(module, forward_set, backward_set)
        model.set_submodule(name, layer)
        return layer


def _is_linear(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.removesuffix(".weight")), nn.Linear)
