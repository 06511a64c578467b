"""The ascending positions of the kept weights, in about 2 + log2(weights / kept) bits each.

Elias-Fano coding (Vigna, https://arxiv.org/abs/1206.4300) stores the low bits of each position in the flattened matrix
as they are, and the high bits in unary. It is within half a bit per kept weight of the optimum, and smaller than the
row pointers and column indices of CSR at every sparsity. So CSR is only used to execute, never to store.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.nn.bitpack import pack_bits, packed_length, unpack_bits


@dataclass(frozen=True)
class EliasFano:
    """The low bits of the `nnz` positions, then a bit vector with a 1 for each position.

    Before each 1 stand as many 0s as the high bits grew since the position before.
    """

    rows: int
    columns: int
    nnz: int

    @property
    def n_values(self) -> int:
        return self.nnz

    @property
    def n_bytes(self) -> int:
        return self._n_low_bytes + packed_length(self._n_high, 1)

    @property
    def _low_bits(self) -> int:
        return (self.rows * self.columns // max(self.nnz, 1)).bit_length() - 1

    @property
    def _n_low_bytes(self) -> int:
        return packed_length(self.nnz, self._low_bits)

    @property
    def _n_high(self) -> int:
        return self.nnz + ((self.rows * self.columns - 1) >> self._low_bits) + 1

    def arguments(self) -> dict[str, Any]:
        return {"layout": "elias_fano", "nnz": self.nnz}

    def fill(self, mask: Tensor) -> Tensor:
        return mask

    def encode(self, mask: Tensor) -> Tensor:
        places = mask.flatten().nonzero().squeeze(1)  # [nnz], ascending
        ones = (places >> self._low_bits) + torch.arange(self.nnz, device=mask.device)
        high = torch.zeros(self._n_high, dtype=torch.uint8, device=mask.device)
        high[ones] = 1
        parts = [pack_bits(high, 1)]
        if self._low_bits:
            parts.insert(0, pack_bits(places & ((1 << self._low_bits) - 1), self._low_bits))
        return torch.cat(parts)

    def decode(self, packed: Tensor) -> Tensor:
        high = unpack_bits(packed[self._n_low_bytes :], 1, self._n_high)
        ones = high.nonzero().squeeze(1)
        places = (ones - torch.arange(self.nnz, device=packed.device)) << self._low_bits
        if self._low_bits:
            places |= unpack_bits(packed[: self._n_low_bytes], self._low_bits, self.nnz).long()
        mask = torch.zeros(self.rows * self.columns, dtype=torch.bool, device=packed.device)
        mask[places] = True
        return mask.view(self.rows, self.columns)
