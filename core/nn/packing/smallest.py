"""The choice of the layout that encodes a given mask in the fewest bytes."""

from collections.abc import Iterator

from torch import Tensor

from core.nn.packing.bitmap import Bitmap
from core.nn.packing.elias_fano import EliasFano
from core.nn.packing.layout import Layout
from core.nn.packing.nm import MAX_M, NM, kept_in_groups


def make_layout(
    name: str, rows: int, columns: int, *, nnz: int | None = None, n: int | None = None, m: int | None = None
) -> Layout:
    """The layout of this name. "nm" needs n and m, "bitmap" and "elias_fano" need nnz; raises ValueError without."""
    if name == "nm" and n is not None and m is not None:
        return NM(rows, columns, n, m)
    if name in ("bitmap", "elias_fano") and nnz is not None:
        return (Bitmap if name == "bitmap" else EliasFano)(rows, columns, nnz)
    raise ValueError(f"no layout {name!r} of nnz={nnz}, n={n}, m={m}")


def smallest_layout(mask: Tensor, value_bytes: float) -> Layout:
    """The layout of a mask [rows, columns] with the fewest bytes of values (`value_bytes` each) and positions."""
    rows, columns = mask.shape
    nnz = int(mask.sum())
    candidates: list[Layout] = [Bitmap(rows, columns, nnz), EliasFano(rows, columns, nnz), *_patterns(mask)]
    return min(candidates, key=lambda layout: layout.n_bytes + layout.n_values * value_bytes)


def _patterns(mask: Tensor) -> Iterator[Layout]:
    """The N:M layouts that can hold the mask: for each M, the N of its fullest group."""
    rows, columns = mask.shape
    for m in range(2, MAX_M + 1):
        if columns % m == 0:
            n = int(kept_in_groups(mask, m).max()) if mask.numel() else 0
            if 0 < n < m:
                yield NM(rows, columns, n, m)
