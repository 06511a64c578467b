"""Attentions of the reference Transformer, by name; settings beyond those of `Attention` are keywords."""

from core.nn.attention.base import Attention
from core.nn.attention.full import FullAttention
from core.nn.attention.sliding_window import SlidingWindowAttention

ATTENTION: dict[str, type[Attention]] = {"full": FullAttention, "sliding_window": SlidingWindowAttention}
