"""One bit for every weight: within a few percent of the entropy from a fifth to four fifths zeros."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from core.nn.bitpack import pack_bits, packed_length, unpack_bits


@dataclass(frozen=True)
class Bitmap:
    """One bit for each weight, 1 where it is kept."""

    rows: int
    columns: int
    nnz: int

    @property
    def n_values(self) -> int:
        return self.nnz

    @property
    def n_bytes(self) -> int:
        return packed_length(self.rows * self.columns, 1)

    def arguments(self) -> dict[str, Any]:
        return {"layout": "bitmap", "nnz": self.nnz}

    def fill(self, mask: Tensor) -> Tensor:
        return mask

    def encode(self, mask: Tensor) -> Tensor:
        return pack_bits(mask.flatten(), 1)

    def decode(self, packed: Tensor) -> Tensor:
        return unpack_bits(packed, 1, self.rows * self.columns).bool().view(self.rows, self.columns)
