"""PTQ4ViT: choose the steps of two operands in turn, by the error of their product weighed with the loss's gradient.

Paper: https://arxiv.org/abs/2111.12293, sections 3.3 and 3.4. The gradient is that of the cross-entropy with the
model's own predictions as labels. (The divergence of the model from itself, as in the authors' code, has none.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.precision import wide
from core.tasks.base import logits_of

SPLITS = tuple(2.0**-i for i in range(20))  # of the twin ranges of probabilities


@dataclass
class Recording:
    """What a module was called with, what it gave, and the loss's gradient by that, batch by batch."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    def joined_inputs(self) -> Tensor:
        """The inputs of all batches, in float32 or wider."""
        return torch.cat([wide(tensor) for tensor in self.inputs])

    def joined(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, outputs and gradients of all batches, in float32 or wider."""
        parts = (self.inputs, self.outputs, self.gradients)
        x, output, gradient = (torch.cat([wide(tensor) for tensor in part]) for part in parts)
        return x, output, gradient


def record(model: nn.Module, modules: Iterable[str], batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Recording]:
    """Recordings of these modules in a model that classifies images, as it is."""
    found = {name: Recording() for name in modules}
    with _hooked(model, found):
        for batch in batches:
            pixels = batch["pixel_values"].detach().clone().requires_grad_()
            with torch.enable_grad():
                logits = logits_of(model, {**batch, "pixel_values": pixels}).float()
                loss = F.cross_entropy(logits, logits.detach().argmax(-1), reduction="sum")
                torch.autograd.grad(loss, pixels)
    return found


@dataclass
class Operand:
    """One operand of a product: `quantizer` makes what rounds it from a candidate, or from one for each unit.

    `by_unit` sums squared errors of the product over all that has one step: a scalar, or [units].
    """

    values: Tensor
    candidates: Sequence[float]
    quantizer: Callable[[Tensor], Any]
    by_unit: Callable[[Tensor], Tensor]

    def rounded(self, candidate: Tensor) -> Tensor:
        """The values on the grid of a candidate, or of one for each unit."""
        rounded: Tensor = self.quantizer(candidate)(self.values)
        return rounded

    def choose(self, product: Callable[[Tensor], Tensor], output: Tensor, gradient: Tensor) -> Tensor:
        """For each unit the candidate with the least weighted error; `product` takes the rounded values."""
        tried = torch.tensor(self.candidates, dtype=torch.float32, device=self.values.device)
        errors = [
            self.by_unit(weighted_errors(output, product(self.rounded(candidate)), gradient)) for candidate in tried
        ]
        return tried[torch.stack(errors).argmin(0)]


def weighted_errors(output: Tensor, rounded: Tensor, gradient: Tensor) -> Tensor:
    """(gradient * (output - rounded))**2, elementwise."""
    return (gradient * (output - rounded)).square()


def choose_in_turn(
    left: Operand,
    right: Operand,
    product: Callable[[Tensor, Tensor], Tensor],
    output: Tensor,
    gradient: Tensor,
    rounds: int,
) -> tuple[Tensor, Tensor]:
    """The candidates of both operands, chosen in turn; `right` begins with candidate 1, the whole range."""
    of_right = torch.ones((), device=output.device)
    of_left = of_right
    for _ in range(rounds):
        of_left = left.choose(partial(_swapped, product, right.rounded(of_right)), output, gradient)
        of_right = right.choose(partial(product, left.rounded(of_left)), output, gradient)
    return of_left, of_right


def _swapped(product: Callable[[Tensor, Tensor], Tensor], right: Tensor, left: Tensor) -> Tensor:
    return product(left, right)


def factors(count: int) -> list[float]:
    """`count` multiples of the step of the whole range, evenly spread over 0.01 .. 1.2."""
    return [0.01 + (1.2 - 0.01) * index / max(1, count - 1) for index in range(count)]


@contextmanager
def _hooked(model: nn.Module, found: Mapping[str, Recording]) -> Iterator[None]:
    handles = [model.get_submodule(name).register_forward_hook(_recorder(seen)) for name, seen in found.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _recorder(seen: Recording) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen.inputs.append(args[0].detach())
        seen.outputs.append(output.detach())
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.gradients.append(gradient.detach()))

    return hook
