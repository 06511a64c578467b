"""Walk over a model and prune or quantize each block by second order, on the inputs that the changed blocks give it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep does to a layer: prune to a pattern, quantize, or both."""

    pattern: Pattern | None = None
    scheme: QuantizationScheme | None = None  # of linear layers and those of experts
    schemes: Mapping[str, QuantizationScheme] = field(default_factory=dict)  # of single layers, in place of `scheme`
    static_groups: bool = False  # grids are fitted before the sweep
    act_order: bool = False  # columns are taken by falling diagonal; grids are static
    damping: float = DAMPING
    sequential: bool = False  # a block's inputs are computed again after each group of its layers


@torch.no_grad()
def sweep_by_hessians(
    subject: Subject, context: Context, layers: Collection[str], n_examples: int, plan: SweepPlan
) -> list[dict[str, Any]]:
    """Prune or quantize each of `layers`, update the weights to come, and return one row of the report for each layer.

    Weights that were pruned before stay zero and count towards the pattern. A warning tells of Hessians that needed
    more damping, or of which only the diagonal could be used.
    """
    rows: dict[str, dict[str, Any]] = {}
    for block in context.blocks(subject, n_examples, layers):
        for names, hessians in block.hessians(sequential=plan.sequential):
            sweeps = [_LayerSweep(subject, name, plan) for name in names]
            for index, hessian in enumerate(hessians):
                factor = factorize(hessian, plan.damping, act_order=plan.act_order)
                _tell(context, factor, plan, names, index if len(sweeps[0].matrices) > 1 else None)
                for sweep in sweeps:
                    sweep.solve_next(hessian, factor)
            rows |= {sweep.name: sweep.finish() for sweep in sweeps}
    return [rows[name] for name in layers if name in rows]


def _tell(context: Context, factor: Factor, plan: SweepPlan, names: list[str], index: int | None) -> None:
    """Warn of a Hessian that needed more than the plan's damping."""
    if factor.damping == plan.damping:
        return
    place = ", ".join(names) + ("" if index is None else f", matrix {index}")
    message = f"the Hessian of {place} is not positive definite with damping {plan.damping:g}"
    if factor.damping is not None:
        message += f": {factor.damping:g} was used"
    elif plan.pattern is None:
        message += ", nor with more: its weights were rounded to nearest"
    else:
        message += ", nor with more: its inputs counted as uncorrelated"
    context.record.event("warning", message)


class _LayerSweep:
    """A layer whose matrices are solved one after another: one of a linear layer, or one for each expert."""

    def __init__(self, subject: Subject, name: str, plan: SweepPlan):
        plan = replace(plan, scheme=plan.schemes.get(name, plan.scheme))
        self.subject, self.name, self.plan = subject, name, plan
        self.layer = subject.model.get_submodule(name)
        self.weight = self.layer.get_parameter("weight").detach()
        mask, groups = subject.mask(f"{name}.weight"), groups_of(self.layer)
        self.masked = mask is not None
        self.matrices = matrices_of(self.weight, groups)
        self.masks = [None] * groups if mask is None else list(matrices_of(mask, groups))
        self.linears = linears_of(self.layer) if plan.scheme is not None else []
        self.solutions: list[Solution] = []
        self.packed: list[QuantLinear] = []
        self.error = self.size = 0.0  # twice the mean square of the outputs' error, and of the outputs

    def solve_next(self, hessian: Tensor, factor: Factor) -> None:
        """Solve the next matrix with the Hessian of its inputs."""
        index = len(self.solutions)
        before, mask = self.matrices[index], self.masks[index]
        if self.linears:
            solution, packed = _solve_and_pack(self.linears[index], hessian.diagonal(), factor, mask, self.plan)
            self.packed.append(packed)
        else:
            solution = solve(before, factor, pattern=self.plan.pattern, mask=mask)
        self.solutions.append(solution)
        self.error += float(exact_error(solution.weight.float() - before.float(), hessian))
        self.size += float(exact_error(before.float(), hessian))

    def finish(self) -> dict[str, Any]:
        """Put the solution into the model, and return the layer's row on the run page.

        `output_error` is the root mean square error of the layer's outputs over their root mean square.
        """
        found = weight_from_matrices(torch.stack([solution.weight for solution in self.solutions]), self.weight.shape)
        mask = weight_from_matrices(torch.stack([solution.mask for solution in self.solutions]), self.weight.shape)
        if self.masked or self.plan.pattern is not None:
            self.subject.constrain(f"{self.name}.weight", mask=mask)
        row = {
            "name": self.name,
            "shape": list(found.shape),
            "weights": found.numel(),
            "sparsity": 1 - int(torch.count_nonzero(found)) / found.numel(),
            "output_error": (self.error / self.size) ** 0.5 if self.size > 0 else 0.0,
        }
        if self.packed:
            return row | replace_by_packed(self.subject, self.name, self.packed, self.packed[0].bits)
        self.weight.copy_(found)
        return row


def _solve_and_pack(
    linear: nn.Linear, importance: Tensor, factor: Factor, mask: Tensor | None, plan: SweepPlan
) -> tuple[Solution, QuantLinear]:
    """Prune and round a linear layer in one sweep; `importance` [in] is for the range estimator of that name."""
    assert plan.scheme is not None
    static = plan.static_groups or plan.act_order
    solutions: list[Solution] = []

    def sweep(fit: Fit, group_size: int | None) -> QuantizedWeight:
        rounding = Rounding(fit, group_size, static=static, importance=importance)
        solutions.append(solve(linear.weight, factor, pattern=plan.pattern, mask=mask, rounding=rounding))
        return rounding.result()

    packed = plan.scheme.pack(linear, sweep)
    return solutions[-1], packed
