"""Whether one arm loses less than another, beyond chance.

Seeds are the units where training noise matters: a paired t-test over the seeds' mean differences. Within a seed
the two are paired example by example, which says how sure the difference between those two very models is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from core.paired_tests import Z

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """How much more the worse arm loses, in nats an example, with its 95 % interval over seeds."""

    difference: float
    low: float
    high: float
    p_value: float
    seeds_for: int  # seeds in which the paired test over examples is significant, each way
    seeds_against: int
    n_seeds: int

    @property
    def words(self) -> str:
        """What may be said."""
        if self.p_value >= LEVEL:
            return "undecided"
        return "as expected" if self.difference > 0 else "THE OTHER WAY ROUND"


def judge(better: Sequence[Tensor], worse: Sequence[Tensor]) -> Verdict:
    """Compare losses [N] of two arms, a tensor a seed, in the same order of seeds and examples."""
    pairs = [(w - b).double() for b, w in zip(better, worse, strict=True)]
    means = torch.stack([pair.mean() for pair in pairs])
    signs = [_significant_sign(pair) for pair in pairs]
    low, high, p_value = _over_seeds(means) if len(means) > 1 else _over_examples(pairs[0])
    return Verdict(float(means.mean()), low, high, p_value, signs.count(1), signs.count(-1), len(pairs))


def _over_seeds(means: Tensor) -> tuple[float, float, float]:
    result = stats.ttest_1samp(means.numpy(), 0.0)
    interval = result.confidence_interval(0.95)
    return float(interval.low), float(interval.high), float(result.pvalue)


def _over_examples(pair: Tensor) -> tuple[float, float, float]:
    error = float(pair.std() / len(pair) ** 0.5)
    mean = float(pair.mean())
    return mean - Z * error, mean + Z * error, float(2 * stats.norm.sf(abs(mean) / error)) if error else 1.0


def _significant_sign(pair: Tensor) -> int:
    low, high, _ = _over_examples(pair)
    return 1 if low > 0 else -1 if high < 0 else 0
