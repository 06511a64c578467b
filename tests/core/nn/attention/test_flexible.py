"""FlexAttention's form of every pattern, executed by its uncompiled reference, against the kernel of our own."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from core.nn.attention.block_layout import BlockLayout
from core.nn.attention.block_sparse import block_sparse_attention
from core.nn.attention.flexible import flexible_attention, takes
from core.nn.attention.sliding_window import window_pattern
from tests.core.nn.attention.oracle import random_qkv
from tests.core.nn.attention.test_bigbird import bigbird


def patterns(kind):
    if kind.startswith("bigbird"):
        attention = bigbird(48, global_tokens=3 if "global" in kind else 0)
        layout = BlockLayout(4, attention.global_tokens, 48)
        return attention.pattern(layout), layout
    layout = BlockLayout(4, 3 if "global" in kind else 0, 48)
    return window_pattern(layout, 6, causal="causal" in kind, device=torch.device("cpu")), layout


@pytest.mark.filterwarnings("ignore:.*torch.compile.*")
@pytest.mark.parametrize(
    ("kind", "is_padded"),
    [("bigbird", False), ("bigbird, global", True), ("window, causal", False), ("window, global", True)],
)
def test_it_computes_the_same(kind, is_padded):
    pattern, layout = patterns(kind)
    total = layout.n_globals + layout.length
    q, k, v = (layout.blocks(x.detach()) for x in random_qkv(total))
    lengths = torch.tensor([[total - 11], [total]])
    seen = layout.seen(torch.arange(total) < lengths if is_padded else None, q)
    mine = flexible_attention(q, k, v, pattern, seen, attend=flex_attention)
    theirs = block_sparse_attention(q, k, v, pattern, seen=seen)
    real = torch.arange(total) < lengths if is_padded else torch.ones(2, total, dtype=torch.bool)
    for index in range(2):
        mine_, theirs_ = (layout.tokens(x)[index][:, real[index]] for x in (mine, theirs))
        torch.testing.assert_close(mine_, theirs_, rtol=0, atol=1e-10)


def test_a_cpu_keeps_our_own_kernel():
    pattern, layout = patterns("window")
    assert not takes(layout.blocks(random_qkv(48)[0]), pattern)
