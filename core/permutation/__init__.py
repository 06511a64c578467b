"""Channel permutations for N:M sparsity: pure functions on matrices, which know nothing of networks."""

from core.permutation.objective import efficacy, kept_sum, row_wise_sum
from core.permutation.search import Found, Strategy, find_permutation
from core.permutation.windows import check_window

__all__ = ["Found", "Strategy", "check_window", "efficacy", "find_permutation", "kept_sum", "row_wise_sum"]
