"""Layouts: encodings of the positions of a sparse matrix's kept weights, and the choice of the smallest."""

from core.nn.packing.bitmap import Bitmap
from core.nn.packing.elias_fano import EliasFano
from core.nn.packing.layout import Layout, rows_of, weight_from_rows
from core.nn.packing.nm import NM
from core.nn.packing.smallest import make_layout, smallest_layout

__all__ = ["NM", "Bitmap", "EliasFano", "Layout", "make_layout", "rows_of", "smallest_layout", "weight_from_rows"]
