"""Channel permutations for N:M sparsity: pure functions on matrices, which know nothing of networks."""

from core.algorithms.permutation.objective import efficacy, kept_sum, row_wise_sum
from core.algorithms.permutation.search import FoundPermutation, Strategy, find_permutation
from core.algorithms.permutation.windows import check_window

__all__ = ["FoundPermutation", "Strategy", "check_window", "efficacy", "find_permutation", "kept_sum", "row_wise_sum"]
