"""The scores that tasks report: unit, direction, and the sums of ratio scores. Loads no torch.

A score is stored in its unit: an accuracy of 97.2 % is 97.2, not 0.972.
"""

import math
from dataclasses import dataclass, field

PERCENT = 100.0


@dataclass(frozen=True)
class Score:
    """A quantity that a task reports, in its unit."""

    name: str  # "accuracy", "bits per character"
    unit: str  # "%", "bits"; empty: a plain number
    higher_is_better: bool
    is_relative: bool = field(default=False, kw_only=True)  # it compares a model with the run's reference


@dataclass(frozen=True)
class RankScore(Score):
    """Spearman's correlation, times 100, of two quantities of each example, as paired tests need them."""

    x: str
    y: str


@dataclass(frozen=True)
class RatioScore(Score):
    """A score that is factor * sum(numerator) / sum(denominator) over the examples, as paired tests need it."""

    numerator: str  # a quantity of each example
    denominator: str | None  # None: the number of examples
    factor: float

    def of_sums(self, numerator: float, denominator: float) -> float:
        """The score of a set of examples with these sums."""
        return self.factor * numerator / denominator


ACCURACY = RatioScore("accuracy", "%", True, "correct", None, PERCENT)
ANSWER_ACCURACY = RatioScore("answer accuracy", "%", True, "correct", "tokens", PERCENT)
TOKEN_ACCURACY = RatioScore("token accuracy", "%", True, "correct", "tokens", PERCENT)
BITS_PER_CHARACTER = RatioScore("bits per character", "bits", False, "nats", "characters", 1 / math.log(2))
BALANCED_ACCURACY = Score("balanced accuracy", "%", True)
FAULTLESS_SEQUENCES = Score("faultless sequences", "%", True)
CROSS_ENTROPY = Score("cross entropy", "nats", False)
EXCESS_BITS = Score("excess over the source's entropy", "bits", False)
COSINE = RatioScore("cosine with the reference", "%", True, "cosine", None, PERCENT, is_relative=True)
SPEARMAN = RankScore("Spearman correlation", "%", True, "similarity", "score")  # times 100, as MTEB reports it
PEARSON = Score("Pearson correlation", "%", True)
PERPLEXITY = Score("perplexity", "", False)  # of the tokens: exp of their mean cross entropy

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        ACCURACY,
        ANSWER_ACCURACY,
        TOKEN_ACCURACY,
        BITS_PER_CHARACTER,
        BALANCED_ACCURACY,
        FAULTLESS_SEQUENCES,
        CROSS_ENTROPY,
        EXCESS_BITS,
        COSINE,
        SPEARMAN,
        PEARSON,
        PERPLEXITY,
    )
}


def find_tested(name: str) -> RatioScore | RankScore | None:
    """The score of this name if two models' can be compared by a paired test, else None."""
    score = SCORES.get(name)
    return score if isinstance(score, RatioScore | RankScore) else None


def find_unit(name: str) -> str | None:
    """The unit of the score of this name; None if it is unknown."""
    return SCORES[name].unit if name in SCORES else None


def difference_unit(unit: str) -> str:
    """The unit of differences of a score: points for percentages."""
    return "points" if unit == "%" else unit


def decimals(unit: str) -> int:
    """The number of decimals shown for a score in this unit."""
    return 1 if unit == "%" else 3
