"""The classes that an artifact's manifest may name: nothing else is ever constructed from one."""

from core.nn.attention.sliding_window import SlidingWindowAttention
from core.nn.replacement import Replacement

REPLACEMENTS: dict[str, type[Replacement]] = {
    "SlidingWindowAttention": SlidingWindowAttention,
}
