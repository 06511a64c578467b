"""The walk over a model that prunes each block by second order, on the inputs that the pruned ones before it give."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.calibration import groups_of, matrices_of, weight_of
from core.context import Context
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.quant_linear import QuantLinear
from core.nn.replacement import Replacement
from core.nn.sparse_integer_linear import without_zeros
from core.observers import is_precise, min_max
from core.rounding import Rounding
from core.second_order import DAMPING, Factor, Pattern, Solution, exact_error, factorize, solve
from core.subject import Subject


@dataclass(frozen=True)
class Grids:
    """The grids that kept weights are rounded to: one for each row, or for each group of its inputs."""

    bits: int
    symmetric: bool
    group_size: int | None

    def pack(
        self, linear: nn.Linear, factors: Sequence[Factor], mask: Tensor | None, pattern: Pattern
    ) -> tuple[list[Solution], QuantLinear]:
        """Prune and round a linear layer in one sweep. Scales are float16, or float32 where that cannot hold them."""
        group_size = self.group_size if self.group_size and self.group_size < linear.in_features else None
        for dtype in (torch.float16, torch.float32):
            observe = partial(min_max, bits=self.bits, symmetric=self.symmetric, dtype=dtype)
            rounding = Rounding(observe, group_size)
            solutions = solve_layer(linear, factors, mask, pattern, rounding)
            codes, scales, zero_points = rounding.result()
            if is_precise(scales, dtype):
                break
        offsets = None if self.symmetric else zero_points
        packed = QuantLinear.of(linear, codes, scales.to(dtype), offsets, bits=self.bits, group_size=group_size)
        return solutions, packed

    def pack_experts(
        self, layer: ExpertLinear, factors: Sequence[Factor], mask: Tensor | None, pattern: Pattern
    ) -> tuple[list[Solution], PackedExpertLinear]:
        """The same for each expert's layer, on grids of its own."""
        masks = [None] * layer.experts if mask is None else list(mask.chunk(layer.experts))
        linears = zip(layer.linears(), factors, masks, strict=True)
        packs = [self.pack(linear, [factor], own, pattern) for linear, factor, own in linears]
        solutions = [solution for solved, _ in packs for solution in solved]
        return solutions, PackedExpertLinear.of([without_zeros(packed) for _, packed in packs])


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
            factors = [factorize(hessian, damping) for hessian in hessians]
            for name in names:
                layer, mask = subject.model.get_submodule(name), subject.mask(f"{name}.weight")
                dense = layer.get_parameter("weight").detach().clone()
                packed: Replacement | None = None
                if grids is not None and isinstance(layer, ExpertLinear):
                    solutions, packed = grids.pack_experts(layer, factors, mask, pattern)
                elif grids is not None and isinstance(layer, nn.Linear):
                    solutions, packed = grids.pack(layer, factors, mask, pattern)
                else:
                    solutions = solve_layer(layer, factors, mask, pattern)
                _take_over(subject, f"{name}.weight", solutions)
                if packed is not None:
                    subject.replace(name, packed)  # which stores no zeros, by the mask
                before = matrices_of(dense, groups_of(layer))
                rows[name] = {"name": name, "shape": list(dense.shape), **_report(before, hessians, solutions)}
    return [rows[name] for name in layers if name in rows]


def solve_layer(
    layer: nn.Module, factors: Sequence[Factor], mask: Tensor | None, pattern: Pattern, rounding: Rounding | None = None
) -> list[Solution]:
    """Each of a layer's matrices solved: a linear layer has one, experts' one each. `rounding` is for linear layers."""
    weights = matrices_of(layer.get_parameter("weight"), groups_of(layer))
    masks = [None] * len(weights) if mask is None else list(matrices_of(mask, groups_of(layer)))
    problems = zip(weights, factors, masks, strict=True)
    return [solve(weight, factor, pattern=pattern, mask=old, rounding=rounding) for weight, factor, old in problems]


def _take_over(subject: Subject, parameter: str, solutions: list[Solution]) -> None:
    weight = subject.model.get_parameter(parameter)
    weight.copy_(weight_of(torch.stack([solution.weight for solution in solutions]), weight.shape))
    subject.constrain(parameter, mask=weight_of(torch.stack([s.mask for s in solutions]), weight.shape))


def _report(before: Tensor, hessians: Tensor, solutions: list[Solution]) -> dict[str, Any]:
    """What the run page shows of a layer; the error is that of its outputs, as a share of their own size."""
    pairs = list(zip(before.float(), hessians, solutions, strict=True))
    error = sum(float(exact_error(solution.weight.float() - weight, h)) for weight, h, solution in pairs)
    size = sum(float(exact_error(weight, h)) for weight, h, _ in pairs)
    kept = sum(int(torch.count_nonzero(solution.weight)) for solution in solutions)
    return {
        "weights": before.numel(),
        "sparsity": 1 - kept / before.numel(),
        "output_error": (error / size) ** 0.5 if size > 0 else 0.0,
    }
