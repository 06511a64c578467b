"""Two models' scores on the same test examples, paired example by example, fast enough for a hundred pairs on a page.

A principal score is a ratio of sums over the examples, or a rank correlation. The interval of a difference is the
normal one of its linearized residuals (Cochran, Sampling Techniques, section 6.4; of ranks, the influences in
`core/rank_correlation.py`); for accuracies, the p-value is from McNemar's exact test, as in `core/measure/score.py`,
else from the normal distribution of the same residuals.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.measured import Comparison
from core.rank_correlation import spearman_influence
from core.scores import PERCENT, RankScore, RatioScore, find_tested

Z = 1.959963984540054  # normal quantile of the two-sided 95 % level
CORRECT = "correct"  # 0 or 1 for each example
OTHER_EXAMPLES = "the two were not scored on the same examples"
Examples = Mapping[str, NDArray[np.floating]]  # quantity -> [N]


def paired(score: str, examples: Examples, base: Examples) -> Comparison:
    """How a score differs from the base's: examples - base, in the score's unit.

    Raises ValueError if the score is unknown, or the two were not scored on the same examples.
    """
    tested = find_tested(score)
    if tested is None:
        raise ValueError(f"no paired test for {score}")
    if isinstance(tested, RankScore):
        return _paired_ranks(tested, examples, base)
    return _paired_ratios(tested, examples, base)


def _paired_ratios(ratio: RatioScore, examples: Examples, base: Examples) -> Comparison:
    values, base_values = (np.asarray(e[ratio.numerator], dtype=np.float64) for e in (examples, base))
    weights, base_weights = (_weights(e, ratio, len(values)) for e in (examples, base))
    if len(values) != len(base_values) or not np.array_equal(weights, base_weights):
        raise ValueError(OTHER_EXAMPLES)
    differences = values - base_values
    delta = differences.sum() / weights.sum()
    residuals = differences - delta * weights
    error = _error(residuals) * len(residuals) / float(weights.sum())
    if ratio.numerator == CORRECT and ratio.denominator is None:
        p_value = mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))
    else:
        p_value = _normal(float(delta), error)
    return _comparison(ratio.factor * float(delta), ratio.factor * error, p_value)


def _paired_ranks(rank: RankScore, examples: Examples, base: Examples) -> Comparison:
    if not np.array_equal(examples[rank.y], base[rank.y]):
        raise ValueError(OTHER_EXAMPLES)
    (value, influence), (base_value, base_influence) = (
        spearman_influence(e[rank.x], e[rank.y]) for e in (examples, base)
    )
    delta, error = value - base_value, _error(influence - base_influence)
    return _comparison(PERCENT * delta, PERCENT * error, _normal(delta, error))


def _comparison(delta: float, error: float, p_value: float) -> Comparison:
    return Comparison(delta, delta - Z * error, delta + Z * error, p_value)


def _error(residuals: NDArray[np.float64]) -> float:
    """Standard error of a mean from its residuals, whose mean is 0."""
    n = len(residuals)
    return math.sqrt(float((residuals**2).sum()) / (n * max(1, n - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple tests (Holm, 1979): together, those below 0.05 have an error rate of 5 %."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = len(p_values) - np.arange(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in adjusted]


def _weights(examples: Examples, ratio: RatioScore, n: int) -> NDArray[np.float64]:
    return np.ones(n) if ratio.denominator is None else np.asarray(examples[ratio.denominator], dtype=np.float64)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of equal accuracies, from how many examples only one of the models gets right."""
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))


def _normal(delta: float, error: float) -> float:
    if not error:
        return 1.0 if not delta else 0.0
    return 2 * float(special.ndtr(-abs(delta) / error))
