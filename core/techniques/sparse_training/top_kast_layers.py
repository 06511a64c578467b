"""A layer under Top-KAST: forward with set A, gradients for set B, which holds A; the rest, C, never moves.

Paper: https://arxiv.org/abs/2106.03517 (Top-KAST, section 2). Here in two ways that train alike. `MaskedLayer` computes
the dense gradient of the weight and masks it. `SparseBackward` computes no other gradients than B's and keeps optimizer
state for B alone: of n weights, |B| have a gradient and state, where the dense way holds n of each; what both hold are
the n weights themselves. The activations' gradient sees A's weights only, in both.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.techniques.sparse_training.active_sets import clear_state


def exploration_gradient(weight: Tensor, forward_set: Tensor, strength: float, density: float) -> Tensor:
    """Gradient of (strength / 2) [sum over A of w^2 + (1 / density) sum over B without A of w^2] for weights of B.

    `density` is that of the forward pass. Shaped like `weight`; what lies outside B is for the caller to mask.
    """
    return torch.where(forward_set, weight * strength, weight * (strength / density))


class SparseLayer(Protocol):
    """What `TopKast` asks of a layer."""

    @property
    def trained(self) -> nn.Parameter:
        """What the optimizer updates."""

    def weight_of_all(self) -> Tensor:
        """The dense weight, shaped as the layer's: A, B and C."""

    def forward_set(self) -> Tensor:
        """The mask A, shaped as the weight."""

    def choose(self, forward_set: Tensor, backward_set: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Go on with other sets; the optimizer's state of what leaves B is forgotten."""

    def penalize(self, strength: float, density: float) -> None:
        """Add the exploration loss's gradient."""

    def restore(self, model: nn.Module, name: str) -> None:
        """Put the plain layer back as `name`, its weight zero outside A."""


class _ForwardBackward(torch.autograd.Function):
    """weight * A, with the gradient of the product for B."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, forward_set: Tensor, backward_set: Tensor) -> Tensor:
        ctx.backward_set = backward_set
        return weight * forward_set

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.backward_set, None, None


class _Sets(nn.Module):
    """Parametrization of a weight by its sets, which are buffers so that checkpoints hold them."""

    def __init__(self, forward_set: Tensor, backward_set: Tensor):
        super().__init__()
        self.register_buffer("forward_set", forward_set)
        self.register_buffer("backward_set", backward_set)

    def forward(self, weight: Tensor) -> Tensor:
        """The weights of A."""
        return _ForwardBackward.apply(weight, self.forward_set, self.backward_set)


class MaskedLayer:
    """A linear layer or convolution whose gradient is computed for every weight, then masked."""

    def __init__(self, module: nn.Module, forward_set: Tensor, backward_set: Tensor):
        self._module = module
        self._sets = _Sets(forward_set, backward_set)
        parametrize.register_parametrization(module, "weight", self._sets)

    @property
    def trained(self) -> nn.Parameter:
        """The dense weight."""
        return self._module.get_parameter("parametrizations.weight.original")

    def weight_of_all(self) -> Tensor:
        """The dense weight."""
        return self.trained.detach()

    def forward_set(self) -> Tensor:
        """The mask A."""
        return self._sets.get_buffer("forward_set")

    def choose(self, forward_set: Tensor, backward_set: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Go on with other sets."""
        clear_state(optimizer, self.trained, ~backward_set)
        self._sets.forward_set = forward_set
        self._sets.backward_set = backward_set

    def penalize(self, strength: float, density: float) -> None:
        """Add to the gradient on B."""
        if self.trained.grad is not None:
            gradient = exploration_gradient(self.weight_of_all(), self.forward_set(), strength, density)
            self.trained.grad.add_(gradient * self._sets.get_buffer("backward_set"))

    def restore(self, model: nn.Module, name: str) -> None:
        """The same module without its parametrization."""
        parametrize.remove_parametrizations(self._module, "weight", leave_parametrized=True)
