"""The walk over a model that prunes each block by second order, on the inputs that the pruned ones before it give."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.algorithms.quantization_grids import min_max
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import DAMPING, Factor, Pattern, Solution, exact_error, factorize, solve
from core.calibration import groups_of, matrices_of, weight_of
from core.context import Context
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.integer_linear import scale_dtypes
from core.nn.precision import is_precise
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import without_zeros
from core.subject import Subject


@dataclass(frozen=True)
class Grids:
    """The grids that kept weights are rounded to: one for each row, or for each group of its inputs."""

    bits: int
    symmetric: bool
    group_size: int | None

    def pack(
        self, linear: nn.Linear, factor: Factor, mask: Tensor | None, pattern: Pattern
    ) -> tuple[Solution, QuantLinear]:
        """Prune and round a linear layer in one sweep; scales as `scale_dtypes` has them."""
        group_size = self.group_size if self.group_size and self.group_size < linear.in_features else None
        for dtype in scale_dtypes(linear.weight.dtype):
            observe = partial(min_max, bits=self.bits, symmetric=self.symmetric, dtype=dtype)
            rounding = Rounding(observe, group_size)
            solution = solve(linear.weight, factor, pattern=pattern, mask=mask, rounding=rounding)
            codes, scales, zero_points = rounding.result()
            if is_precise(scales, dtype):
                break
        offsets = None if self.symmetric else zero_points
        packed = QuantLinear.of(linear, codes, scales.to(dtype), offsets, bits=self.bits, group_size=group_size)
        return solution, packed


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
    grids: Grids | None = None,
) -> list[dict[str, Any]]:
    """Prune each of `layers` and update what is kept; a row for each.

    With `grids`, linear layers and experts' ones are quantized too. What was pruned stays so, and counts. `sequential`
    takes inputs anew after each group of layers in a block.
    """
    rows: dict[str, dict[str, Any]] = {}
    for block in context.blocks(subject, n_examples, layers):
        for names, hessians in block.hessians(sequential=sequential):
            sweeps = [_LayerSweep(subject, name, pattern, grids) for name in names]
            for hessian in hessians:
                factor = factorize(hessian, damping)
                for sweep in sweeps:
                    sweep.solve_next(hessian, factor)
            rows |= {sweep.name: sweep.finish() for sweep in sweeps}
    return [rows[name] for name in layers if name in rows]


class _LayerSweep:
    """A layer whose matrices are solved one after another: a linear layer has one, experts' one each."""

    def __init__(self, subject: Subject, name: str, pattern: Pattern, grids: Grids | None):
        self.subject, self.name, self.pattern = subject, name, pattern
        self.layer = subject.model.get_submodule(name)
        self.weight = self.layer.get_parameter("weight").detach()
        mask, groups = subject.mask(f"{name}.weight"), groups_of(self.layer)
        self.matrices = matrices_of(self.weight, groups)
        self.masks = [None] * groups if mask is None else list(matrices_of(mask, groups))
        self.grids, self.linears = grids, _linears(self.layer)
        self.solutions: list[Solution] = []
        self.packed: list[QuantLinear] = []
        self.error = self.size = 0.0  # of the outputs: twice the mean squares

    def solve_next(self, hessian: Tensor, factor: Factor) -> None:
        """The next matrix, with the Hessian of its inputs."""
        index = len(self.solutions)
        before, mask = self.matrices[index], self.masks[index]
        if self.grids is not None and self.linears:
            solution, packed = self.grids.pack(self.linears[index], factor, mask, self.pattern)
            self.packed.append(packed)
        else:
            solution = solve(before, factor, pattern=self.pattern, mask=mask)
        self.solutions.append(solution)
        self.error += float(exact_error(solution.weight.float() - before.float(), hessian))
        self.size += float(exact_error(before.float(), hessian))

    def finish(self) -> dict[str, Any]:
        """Put what was found into the model; what the run page shows of the layer.

        The error is that of the layer's outputs, as a share of their own size.
        """
        found = weight_of(torch.stack([solution.weight for solution in self.solutions]), self.weight.shape)
        mask = weight_of(torch.stack([solution.mask for solution in self.solutions]), self.weight.shape)
        self.weight.copy_(found)
        self.subject.constrain(f"{self.name}.weight", mask=mask)
        if isinstance(self.layer, ExpertLinear) and self.packed:
            self.subject.replace(self.name, PackedExpertLinear.of([without_zeros(packed) for packed in self.packed]))
        elif self.packed:
            self.subject.replace(self.name, self.packed[0])  # which stores no zeros, by the mask
        return {
            "name": self.name,
            "shape": list(found.shape),
            "weights": found.numel(),
            "sparsity": 1 - int(torch.count_nonzero(found)) / found.numel(),
            "output_error": (self.error / self.size) ** 0.5 if self.size > 0 else 0.0,
        }


def _linears(layer: nn.Module) -> list[nn.Linear]:
    """A layer's matrices as linear layers; convolutions have none."""
    if isinstance(layer, ExpertLinear):
        return layer.linears()
    return [layer] if isinstance(layer, nn.Linear) else []
