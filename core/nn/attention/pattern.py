"""What a sparse pattern is: which blocks of keys each block of queries sees, and what of them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PatternLabels:
    """Which of a query's `terms` is added to the score of each key that its row sees."""

    last: Tensor  # uint8 [r or 1, block, x]: numbers of terms, for the last x tokens of the keys
    inside: Tensor  # bool [r, block, m * block - x]: the tokens before them are of one of two kinds,
    terms: tuple[int, int]  # whose terms have these numbers: inside, outside


@dataclass(frozen=True)
class BlockRows:
    """Rows of blocks that each see m blocks of keys, and what the tokens in them see of those.

    Keys that a row names twice count twice in its softmax.
    """

    rows: Tensor  # [r]: numbers of the blocks of queries
    keys: Tensor  # [heads or 1, r, m]: numbers of the blocks of keys that they see
    seen: Tensor | None = None  # bool [block, m * block], the same for every row; None: everything
    labels: PatternLabels | None = None
