"""Walk over a model and prune or quantize each block by second order, on the inputs that the changed blocks give it."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.algorithms.quantization_grids import Fit, QuantizationScheme, QuantizedWeight
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import DAMPING, Factor, Pattern, Solution, exact_error, factorize, solve
from core.calibration import groups_of, matrices_of, weight_from_matrices
from core.context import Context
from core.nn.quant_linear import QuantLinear
from core.subject import Subject


@torch.no_grad()
def prune_by_hessians(
    subject: Subject,
    context: Context,
    layers: Collection[str],
    n_examples: int,
    pattern: Pattern,
    *,
    damping: float = DAMPING,
    sequential: bool = False,
    scheme: QuantizationScheme | None = None,
) -> list[dict[str, Any]]:
    """Prune each of `layers`, update the weights that are kept, and return one row of the report for each layer.

    With a `scheme`, linear layers and those of experts are quantized in the same sweep. Weights that were pruned
    before stay zero and count towards the pattern. `sequential` computes a block's inputs again after each group of
    its layers.
    """
    rows: dict[str, dict[str, Any]] = {}
    for block in context.blocks(subject, n_examples, layers):
        for names, hessians in block.hessians(sequential=sequential):
            sweeps = [_LayerSweep(subject, name, pattern, scheme) for name in names]
            for hessian in hessians:
                factor = factorize(hessian, damping)
                for sweep in sweeps:
                    sweep.solve_next(hessian, factor)
            rows |= {sweep.name: sweep.finish() for sweep in sweeps}
    return [rows[name] for name in layers if name in rows]


class _LayerSweep:
    """A layer whose matrices are solved one after another: one of a linear layer, or one for each expert."""

    def __init__(self, subject: Subject, name: str, pattern: Pattern, scheme: QuantizationScheme | None):
        self.subject, self.name, self.pattern = subject, name, pattern
        self.layer = subject.model.get_submodule(name)
        self.weight = self.layer.get_parameter("weight").detach()
        mask, groups = subject.mask(f"{name}.weight"), groups_of(self.layer)
        self.matrices = matrices_of(self.weight, groups)
        self.masks = [None] * groups if mask is None else list(matrices_of(mask, groups))
        self.scheme, self.linears = scheme, linears_of(self.layer)
        self.solutions: list[Solution] = []
        self.packed: list[QuantLinear] = []
        self.error = self.size = 0.0  # twice the mean square of the outputs' error, and of the outputs

    def solve_next(self, hessian: Tensor, factor: Factor) -> None:
        """Solve the next matrix with the Hessian of its inputs."""
        index = len(self.solutions)
        before, mask = self.matrices[index], self.masks[index]
        if self.scheme is not None and self.linears:
            solution, packed = _solve_and_pack(self.linears[index], factor, mask, self.pattern, self.scheme)
            self.packed.append(packed)
        else:
            solution = solve(before, factor, pattern=self.pattern, mask=mask)
        self.solutions.append(solution)
        self.error += float(exact_error(solution.weight.float() - before.float(), hessian))
        self.size += float(exact_error(before.float(), hessian))

    def finish(self) -> dict[str, Any]:
        """Put the solution into the model, and return the layer's row on the run page.

        `output_error` is the root mean square error of the layer's outputs over their root mean square.
        """
        found = weight_from_matrices(torch.stack([solution.weight for solution in self.solutions]), self.weight.shape)
        mask = weight_from_matrices(torch.stack([solution.mask for solution in self.solutions]), self.weight.shape)
        self.subject.constrain(f"{self.name}.weight", mask=mask)
        row = {
            "name": self.name,
            "shape": list(found.shape),
            "weights": found.numel(),
            "sparsity": 1 - int(torch.count_nonzero(found)) / found.numel(),
            "output_error": (self.error / self.size) ** 0.5 if self.size > 0 else 0.0,
        }
        if self.packed and self.scheme is not None:
            return row | replace_by_packed(self.subject, self.name, self.packed, self.scheme.bits)
        self.weight.copy_(found)
        return row


def _solve_and_pack(
    linear: nn.Linear, factor: Factor, mask: Tensor | None, pattern: Pattern, scheme: QuantizationScheme
) -> tuple[Solution, QuantLinear]:
    """Prune and round a linear layer in one sweep."""
    solutions: list[Solution] = []

    def sweep(fit: Fit, group_size: int | None) -> QuantizedWeight:
        rounding = Rounding(fit, group_size)
        solutions.append(solve(linear.weight, factor, pattern=pattern, mask=mask, rounding=rounding))
        return rounding.result()

    packed = scheme.pack(linear, sweep)
    return solutions[-1], packed
