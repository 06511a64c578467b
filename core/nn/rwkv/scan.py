"""Sums of terms that decay by a constant rate, all prefixes at once, in logarithms so that nothing overflows.

S_t = sum over i <= t of exp((t - i) w + log_i) values_i is kept as (values, logs) with S = values * exp(logs), where
`logs` is the largest exponent in the sum. Two stretches of tokens combine into one, so all prefixes come from a tree
(Brent and Kung, 1982): 2 T combinations in 2 log2(T) rounds, instead of a loop over T tokens.
"""

import torch
from torch import Tensor

Sum = tuple[Tensor, Tensor]  # values [B, T, n, C], and the logarithm of their common factor [B, T, 1, C]


def decayed_sums(values: Tensor, logs: Tensor, log_decay: Tensor, stride: int = 1) -> Sum:
    """All prefix sums S_t of values [B, T, n, C] that are to be multiplied by exp(logs) [B, T, 1, C].

    `log_decay` [C] is w, not positive; tokens lie `stride` steps of it apart.
    """
    length = values.shape[1]
    if length == 1:
        return values, logs
    even = (values[:, 0 : length - length % 2 : 2], logs[:, 0 : length - length % 2 : 2])
    odd = (values[:, 1::2], logs[:, 1::2])
    pairs = decayed_sums(*_combined(even, odd, log_decay * stride), log_decay, 2 * stride)
    later = (values[:, 2::2], logs[:, 2::2])
    n_later = later[0].shape[1]
    after = _combined((pairs[0][:, :n_later], pairs[1][:, :n_later]), later, log_decay * stride)
    return _interleaved(values[:, :1], after[0], pairs[0]), _interleaved(logs[:, :1], after[1], pairs[1])


def _interleaved(first: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """Places 0; 2, 4, ...; and 1, 3, ... in their order [B, T, ...]."""
    even = torch.cat((first, even), dim=1)
    n_pairs = odd.shape[1]
    pairs = torch.stack((even[:, :n_pairs], odd), dim=2).flatten(1, 2)
    return torch.cat((pairs, even[:, n_pairs:]), dim=1)


def _combined(earlier: Sum, later: Sum, log_decay: Tensor) -> Sum:
    """The sum of two stretches, of which the earlier has decayed by exp(log_decay) meanwhile."""
    aged = earlier[1] + log_decay
    logs = torch.maximum(aged, later[1])
    values = (aged - logs).exp_() * earlier[0]
    return values.addcmul_((later[1] - logs).exp_(), later[0]), logs
