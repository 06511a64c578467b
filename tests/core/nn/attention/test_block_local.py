"""Block-local attention against a dense masked softmax, and decoding with the keys of one block."""

import pytest
import torch

from core.nn.attention.block_local import BlockLocalAttention, block_local_attention
from core.nn.attention.full import FullAttention
from tests.core.nn.attention.oracle import assert_same_with_gradients, masked_softmax, random_qkv


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("length", "block"), [(1, 4), (4, 4), (5, 4), (23, 4), (24, 8), (9, 1), (9, 16)])
def test_equals_a_dense_masked_softmax_forward_and_backward(length, block, causal):
    q, k, v = random_qkv(length)
    place = torch.arange(length)
    mask = place[:, None] // block == place // block
    if causal:
        mask = mask & (place <= place[:, None])
    mine = block_local_attention(q, k, v, block, causal=causal)
    assert_same_with_gradients(mine, masked_softmax(q, k, v, mask), (q, k, v))


@pytest.mark.parametrize("n_globals", [1, 4, 9])
@pytest.mark.parametrize(("length", "block"), [(4, 4), (23, 4), (9, 1), (9, 16)])
def test_global_tokens_are_in_blocks_of_their_own_and_move_no_others(length, block, n_globals):
    q, k, v = random_qkv(n_globals + length)
    place = torch.arange(n_globals + length)
    own = torch.where(place < n_globals, -1 - place // block, (place - n_globals) // block)
    mine = block_local_attention(q, k, v, block, causal=False, n_globals=n_globals)
    assert_same_with_gradients(mine, masked_softmax(q, k, v, own[:, None] == own), (q, k, v))


def test_padding_is_never_seen():
    q, k, v = random_qkv(20)
    mask = torch.arange(20) < torch.tensor([[20], [9]])
    mine = block_local_attention(q, k, v, 8, causal=False, mask=mask)
    alone = block_local_attention(q[1:, :, :9], k[1:, :, :9], v[1:, :, :9], 8, causal=False)
    torch.testing.assert_close(mine[1:, :, :9], alone)


@pytest.mark.parametrize("rotary", [None, 10000.0])
@pytest.mark.parametrize("pieces", [[1] * 30, [13, 1, 1, 5, 10], [30], [4, 26], [2, 2, 26], [8, 8, 14]])
def test_attention_with_its_cache_equals_recomputation(pieces, rotary):
    attention = BlockLocalAttention(32, 4, kv_heads=2, causal=True, rotary=rotary, block=8)
    x = torch.randn(2, 30, 32)
    cache = attention.make_cache(30)
    parts = [attention(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), attention(x), rtol=1e-5, atol=1e-5)
    assert cache.length == 30
    assert cache.keys is not None
    assert cache.keys.shape == cache.values.shape == (2, 2, 8, 8)


@pytest.mark.parametrize("pieces", [[64], [63, 1], [1] * 64, [5, 59]])
def test_what_is_kept_of_a_text_is_one_block_however_long_it_is(pieces):
    attention = BlockLocalAttention(32, 4, kv_heads=2, causal=True, block=8)
    cache = attention.make_cache(64)
    for n_tokens in pieces:
        attention(torch.randn(3, n_tokens, 32), cache=cache)
    for kept in (cache.keys, cache.values):
        assert kept.untyped_storage().nbytes() == 4 * 3 * 2 * 8 * 8  # no view of the whole prompt


def test_a_block_over_everything_is_full_attention():
    full = FullAttention(32, 4, kv_heads=2, causal=True)
    x = torch.randn(2, 12, 32)
    made = BlockLocalAttention.from_attention(full, block=12)
    torch.testing.assert_close(made(x), full(x))
    assert not torch.allclose(BlockLocalAttention.from_attention(full, block=6)(x), full(x))
