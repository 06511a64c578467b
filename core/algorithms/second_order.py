"""Prune and round a layer's weights column by column, and let the columns that follow make up for the error.

Papers: SparseGPT, https://arxiv.org/abs/2301.00774 (section 3); GPTQ, https://arxiv.org/abs/2210.17323 (section 3).
Both are the optimal brain surgeon in a fixed order of columns. With H = 2/N sum x x^T and H^-1 = U^T U, U upper
triangular, column i gets its final value q_i, which leaves the error e_i = (w_i - q_i) / U_ii, and every later column
j changes by -e_i U_ij. The sum of all e^2 is then tr(D H D^T), where D is the change of the whole weight: the mean
squared error of the layer's outputs, twice (H has the factor).
Here U comes from one Cholesky factorization and one triangular inversion, in float64. What is added to H's diagonal is
a share of its mean over live inputs; those that were always zero take that mean, since nothing follows from them. Where
H is not positive definite even so, ten times as much is added, up to three times. If that does not help either, only
H's diagonal counts: then no column makes up for another, rounding is to the nearest, and pruning by weighted magnitude.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.algorithms.masks import keep_largest, nm_mask
from core.algorithms.rounding import Rounding

DAMPING = 0.01
BLOCK = 128  # columns that are finished before the rest of the weight is touched
LEAF = 32  # columns that are finished before the rest of the block is
RAISES = (1, 10, 100, 1000)  # multiples of the damping that are tried, one after another


class Factor(NamedTuple):
    """What the solver wants of a Hessian; layers with the same inputs share it."""

    upper: Tensor  # U [d, d], float64, of columns in the order of the sweep
    dead: Tensor  # bool [d]: inputs that were always zero
    order: Tensor | None  # [d]: the columns in the order of the sweep; None: from left to right
    damping: float | None  # what it took; None: nothing helped, and only the diagonal counts


@dataclass(frozen=True)
class Unstructured:
    """This share of the weights goes, of every `columns` columns over all rows.

    None: 128, as in the paper, but not more than half of the weight's. The first columns of a choice look cheap,
    since all later ones can make up for them, so that a single choice for a narrow layer would empty them.
    """

    sparsity: float
    columns: int | None = None


@dataclass(frozen=True)
class NOfM:
    """`n` of every `m` consecutive columns stay, in every row."""

    n: int
    m: int


Pattern = Unstructured | NOfM


class Solution(NamedTuple):
    """What the sweep makes of a weight [rows, d]."""

    weight: Tensor  # zero where pruned, on the grid where rounded
    mask: Tensor  # bool, True = kept
    error: Tensor  # [rows]: the sum of e^2


def factorize(hessian: Tensor, damping: float = DAMPING, *, act_order: bool = False) -> Factor:
    """U of a Hessian [d, d]; raises ValueError if it is not finite.

    `act_order` takes the columns by falling diagonal, so that those with the largest inputs are rounded first, when all
    others can still make up for them.
    """
    diagonal = hessian.diagonal()
    if not torch.isfinite(diagonal).all():
        raise ValueError("the Hessian is not finite: a calibration input is infinite or NaN")
    dead = diagonal == 0
    mean = diagonal[~dead].double().mean() if not dead.all() else diagonal.new_ones((), dtype=torch.float64)
    order = diagonal.argsort(descending=True, stable=True) if act_order else None
    damped = hessian.to(torch.float64, copy=True)
    damped = damped if order is None else damped[order][:, order]
    live = damped.diagonal() + (dead if order is None else dead[order]) * mean
    for raised in (damping * factor for factor in RAISES):
        damped.diagonal().copy_(live + raised * mean)
        upper = _upper(damped)
        if upper is not None:
            return Factor(upper, dead, order, raised)
    return Factor((live + damping * mean).rsqrt().diag(), dead, order, None)


def _upper(hessian: Tensor) -> Tensor | None:
    """U upper triangular with H^-1 = U^T U; None if H is not positive definite."""
    # H = R R^T with R upper triangular is Cholesky's factorization in the reverse order; then U = R^-1
    lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if failed:
        return None
    identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)


def solve(
    weight: Tensor,
    factor: Factor,
    *,
    pattern: Pattern | None = None,
    mask: Tensor | None = None,
    rounding: Rounding | None = None,
    block_size: int = BLOCK,
) -> Solution:
    """Prune a weight [rows, d] to `pattern`, and round it, with the least that a sweep can do to its outputs.

    What `mask` excludes stays zero, and counts towards the pattern. Without a pattern nothing more is pruned (GPTQ).
    `rounding` has every code after the sweep. Groups that it fits in the sweep must be whole groups of an n:m pattern.
    In an order other than from left to right there can be neither (ValueError).
    """
    columns = weight.to(torch.promote_types(weight.dtype, torch.float32)).t().clone()  # [d, rows]
    columns[factor.dead] = 0
    kept = torch.ones_like(columns, dtype=torch.bool) if mask is None else mask.t().clone()
    if rounding is not None and rounding.static:
        rounding.begin_all(columns.t())
    if factor.order is not None:
        columns, kept = columns[factor.order], kept[factor.order]
    sweep = _Sweep(columns, factor, kept, pattern, rounding)
    sweep.run(block_size)
    error = sweep.errors.square().sum(dim=0)
    if factor.order is not None:
        back = factor.order.argsort()
        columns, kept = columns[back], kept[back]
    return Solution(columns.t().contiguous(), kept.t().contiguous(), error)


class _Sweep:
    """The weight as columns [d, rows], each contiguous, and what has become of it so far."""

    def __init__(
        self, columns: Tensor, factor: Factor, kept: Tensor, pattern: Pattern | None, rounding: Rounding | None
    ):
        self.columns, self.upper, self.kept = columns, factor.upper.to(columns.dtype), kept  # written to, but upper
        self.indices = list(range(len(columns))) if factor.order is None else factor.order.tolist()
        self.errors = torch.zeros_like(columns)
        self.pattern, self.rounding = pattern, rounding
        self.fitted = None if rounding is None or rounding.static else rounding.group_size  # columns, in the sweep
        if factor.order is not None and (self.fitted or isinstance(pattern, NOfM)):
            raise ValueError("groups of columns that are not neighbours in the sweep cannot be fitted or chosen in it")
        self.step = _step(pattern, len(columns), self.fitted)

    def run(self, block_size: int) -> None:
        """All columns."""
        d = len(self.columns)
        self._parts(0, d, _widths(d, self.step, self.fitted, block_size))

    def _parts(self, start: int, end: int, widths: list[int]) -> None:
        """Finish columns start..end, in parts of the first width, those in parts of the second ..."""
        if not widths:
            for i in range(start, end):
                self._column(i, end)
            return
        for first in range(start, end, widths[0]):
            last = min(first + widths[0], end)
            if widths[0] == self.step:
                self._choose(first, last)
            self._parts(first, last, widths[1:])
            later = self.columns[last:end]  # makes up for the errors of first..last
            later.addmm_(self.upper[first:last, last:end].t(), self.errors[first:last], alpha=-1)

    def _column(self, i: int, end: int) -> None:
        if self.rounding is not None and self.fitted is not None and i % self.fitted == 0:
            self.rounding.begin(i, self.columns[i : i + self.fitted].t())
        final = self.columns[i] * self.kept[i]
        final = final if self.rounding is None else self.rounding.round(self.indices[i], final)
        self.errors[i] = (self.columns[i] - final) / self.upper[i, i]
        self.columns[i] = final
        self.columns[i + 1 : end].addr_(self.upper[i, i + 1 : end], self.errors[i], alpha=-1)

    def _choose(self, first: int, last: int) -> None:
        """The mask of these columns by w^2 / U_ii^2, what zeroing each costs. What is pruned already goes first."""
        scores = (self.columns[first:last] / self.upper.diagonal()[first:last, None]).square()
        scores.masked_fill_(~self.kept[first:last], -1.0)
        if isinstance(self.pattern, NOfM):
            self.kept[first:last] &= nm_mask(scores.t(), self.pattern.n, self.pattern.m).t()
        elif self.pattern is not None:
            share = self.pattern.sparsity * scores.shape[1]
            n_dropped = round(share * last) - round(share * first)  # exact over all choices
            self.kept[first:last] &= keep_largest(scores, scores.numel() - n_dropped)


def _step(pattern: Pattern | None, d: int, group_size: int | None) -> int | None:
    """Columns whose mask is chosen at once: whole groups of rounding, or fewer than one."""
    if isinstance(pattern, NOfM):
        if group_size is not None and group_size % pattern.m:
            raise ValueError(
                f"quantization groups of {group_size} columns do not consist of whole groups of {pattern.m}"
            )
        return pattern.m
    if pattern is None:
        return None
    step = pattern.columns or max(1, min(BLOCK, d // 2))
    return step if group_size is None or step < group_size else step // group_size * group_size


def _widths(d: int, step: int | None, group_size: int | None, block_size: int) -> list[int]:
    """Widths of parts inside parts, each a multiple of the next where it matters.

    Columns that are chosen or fitted together are a part, and so are up to date when it begins. The others are for
    speed: a block, so that the rest of the weight is touched once for many columns, and what stays in the cache.
    """
    together = {size for size in (step, group_size) if size is not None}
    inner = {size for size in together if size <= max(block_size, step or 1)}
    unit = max(inner, default=1)
    block = max(unit, block_size // unit * unit)
    small = max((size for size in inner if size <= LEAF), default=1)
    inner |= {block, min(block, LEAF // small * small)}
    return [*sorted(together - inner), *sorted(inner, reverse=True)]


def exact_error(change: Tensor, hessian: Tensor) -> Tensor:
    """tr(D H D^T), D [rows, d] a weight's change: twice the mean over inputs of its outputs' squared error."""
    return ((change @ hessian.to(change.dtype)) * change).sum()
