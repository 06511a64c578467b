"""The table of a sensitivity step: the loss increase and the costs of each layer, or tied layers, in each format.

It is stored with the stage as JSON, so that a page solves another budget without measuring again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from core.allocation.choice import Choice, Matrix, choose, total

BudgetUnit = Literal["average-bits", "megabytes", "bit-operations", "milliseconds"]
KernelRule = Literal["any", "here"]
DENSE = 0  # place of the unchanged layer among the formats
MEGA, GIGA = 1e6, 1e9
BASELINE_BITS = 8  # of the first and last layers in the usual rule of thumb


@dataclass(frozen=True)
class LayerFormat:
    """How a layer's weights are stored, and the bits of its activations (None: unchanged)."""

    bits: int
    group_size: int | None = None  # inputs that share a scale; None: an output channel's weights do
    activation_bits: int | None = None
    dense: bool = False

    @property
    def name(self) -> str:
        """A short name: "dense", "4-bit", "4-bit g64", "W8A8"."""
        if self.dense:
            return "dense"
        if self.activation_bits is not None:
            return f"W{self.bits}A{self.activation_bits}"
        return f"{self.bits}-bit" + (f" g{self.group_size}" if self.group_size else "")


@dataclass(frozen=True)
class LayerGroup:
    """Layers that get the same format because they share their input, and what each format means for them."""

    layers: list[str]  # full names
    block: str  # "" outside of blocks
    weights: int
    losses: list[float | None]  # by format, in nats; None where it is not finite
    bytes: list[int]  # weights, scales and zero points; a bias is not in it
    macs: float  # multiply-accumulates for one example
    milliseconds: list[float] = field(default_factory=list)  # for one example, by format
    kernels: list[str | None] = field(default_factory=list)  # by format; None: unpacked

    @property
    def name(self) -> str:
        """The layers' names with what they share written once: "blocks.0.attention.q, k, v"."""
        heads = {name.rpartition(".")[0] for name in self.layers}
        if len(self.layers) == 1 or len(heads) > 1:
            return ", ".join(self.layers)
        tails = ", ".join(name.rpartition(".")[2] for name in self.layers)
        return f"{heads.pop()}.{tails}".lstrip(".")


@dataclass(frozen=True)
class SensitivityTable:
    """All groups with all formats; the first format is the unchanged layer, whose loss increase is zero."""

    method: str
    formats: list[LayerFormat]
    groups: list[LayerGroup]
    other_bytes: int  # of tensors that no format changes
    examples: int  # calibration examples
    rounding: dict[str, Any]  # how codes were chosen: symmetric, range estimator, percentile
    hardware: str = ""  # of the milliseconds
    rows: int = 0  # input vectors that the milliseconds are for

    @property
    def losses(self) -> Matrix:
        """Loss increases [groups, formats]."""
        return np.array([group.losses for group in self.groups], dtype=float)

    @property
    def weights(self) -> int:
        """Weights of all groups."""
        return sum(group.weights for group in self.groups)

    def costs(self, unit: BudgetUnit) -> Matrix:
        """Costs [groups, formats]; with `fixed(unit)` they sum to what a budget of that unit bounds."""
        return np.array([_COSTS[unit](group, self) for group in self.groups], dtype=float)

    def fixed(self, unit: BudgetUnit) -> float:
        """The cost that no choice changes."""
        return self.other_bytes / MEGA if unit == "megabytes" else 0.0

    def allowed_losses(self, rule: KernelRule = "any") -> Matrix:
        """Loss increases with those of formats that must not be chosen set to NaN.

        "here" allows only formats that a kernel on this worker executes, and unchanged layers.
        """
        losses = self.losses
        if rule == "here":
            legal = [[i == DENSE or kernel is not None for i, kernel in enumerate(g.kernels)] for g in self.groups]
            losses = np.where(np.array(legal), losses, np.nan)
        return losses

    def solve(self, unit: BudgetUnit, budget: float, rule: KernelRule = "any") -> Choice:
        """The best choice within the budget; raises Unaffordable. Baselines that fit are never better."""
        candidates = list(self.baselines(unit, budget, rule).values())
        return choose(self.allowed_losses(rule), self.costs(unit), budget - self.fixed(unit), candidates)

    def baselines(self, unit: BudgetUnit, budget: float, rule: KernelRule = "any") -> dict[str, Choice]:
        """The best uniform choice within the budget, and the best with the first and last block at 8 bit.

        A key is missing where no such choice fits.
        """
        losses, costs = np.nan_to_num(self.allowed_losses(rule), nan=np.inf), self.costs(unit)
        room = budget - self.fixed(unit)
        found = {}
        for name, choices in (("uniform", self.uniform_choices()), ("first and last at 8 bit", self.edge_choices())):
            fitting = [c for c in choices if total(costs, c) <= room and np.isfinite(total(losses, c))]
            if fitting:
                found[name] = min(fitting, key=lambda c: (total(losses, c), total(costs, c)))
        return found

    def uniform_choices(self) -> list[Choice]:
        """Every format, for all groups."""
        return [np.full(len(self.groups), index) for index in range(len(self.formats))]

    def edge_choices(self) -> list[Choice]:
        """Every format of fewer than 8 bits with the first and the last block (or layer) at 8 bit."""
        blocks = [group.block or group.layers[0] for group in self.groups]
        at_edge = np.array([block in (blocks[0], blocks[-1]) for block in blocks])
        choices = []
        for index, inner in enumerate(self.formats):
            edge = self._eight_bit_like(inner)
            if edge is not None and not inner.dense and inner.bits < BASELINE_BITS:
                choices.append(np.where(at_edge, edge, index))
        return choices

    def predicted(self, choice: Choice) -> float:
        """The sum of the chosen loss increases."""
        return total(np.maximum(self.losses, 0.0), choice)

    def cost(self, choice: Choice, unit: BudgetUnit) -> float:
        """What a choice costs in a unit, including what no choice changes."""
        return total(self.costs(unit), choice) + self.fixed(unit)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads, without NaN."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The table that `to_json` wrote."""
        formats = [LayerFormat(**each) for each in data["formats"]]
        groups = [LayerGroup(**each) for each in data["groups"]]
        return cls(**{**data, "formats": formats, "groups": groups})

    def _eight_bit_like(self, inner: LayerFormat) -> int | None:
        """The 8-bit format whose scales are shared as in `inner`, or else any of 8 bits."""
        eights = [i for i, each in enumerate(self.formats) if each.bits == BASELINE_BITS and not each.dense]
        alike = [i for i in eights if self.formats[i].group_size == inner.group_size]
        weight_only = [i for i in eights if self.formats[i].activation_bits is None]
        return next(iter([*[i for i in alike if i in weight_only], *weight_only]), None)


def _bits(group: LayerGroup, table: SensitivityTable) -> list[float]:
    return [8 * n_bytes / table.weights for n_bytes in group.bytes]


def _operations(group: LayerGroup, table: SensitivityTable) -> list[float]:
    dense = table.formats[DENSE].bits
    return [group.macs * each.bits * (each.activation_bits or dense) / GIGA for each in table.formats]


_COSTS: dict[BudgetUnit, Callable[[LayerGroup, SensitivityTable], Sequence[float]]] = {
    "average-bits": _bits,
    "megabytes": lambda group, table: [n_bytes / MEGA for n_bytes in group.bytes],
    "bit-operations": _operations,
    "milliseconds": lambda group, table: group.milliseconds,
}
