"""Global tokens beside a window, windows wider than a block, and memory that grows with the length alone."""

import pytest
import torch

from core.nn.attention import block_layout
from core.nn.attention.sliding_window import SlidingWindowAttention, windowed_attention
from tests.core.nn.attention.oracle import LargestTensor, assert_same_with_gradients, masked_softmax, random_qkv


@pytest.mark.parametrize("n_globals", [0, 1, 4, 9])
@pytest.mark.parametrize(("length", "window"), [(40, 4), (37, 4), (6, 4), (3, 4), (20, 1), (30, 13), (30, 16)])
def test_global_tokens_see_all_and_are_seen_by_all(length, window, n_globals, monkeypatch):
    monkeypatch.setattr(block_layout, "WIDEST_BLOCK", 6)  # so that windows of 13 and 16 reach over several blocks
    q, k, v = random_qkv(n_globals + length)
    place = torch.arange(n_globals + length) - n_globals
    mask = (place[:, None] - place).abs() < window
    mask[:n_globals] = mask[:, :n_globals] = True
    mine = windowed_attention(q, k, v, window, causal=False, n_globals=n_globals)
    assert_same_with_gradients(mine, masked_softmax(q, k, v, mask), (q, k, v))


@pytest.mark.parametrize("window", [9, 13, 16])
@pytest.mark.parametrize("length", [40, 33, 7])
def test_causal_windows_wider_than_a_block(window, length, monkeypatch):
    monkeypatch.setattr(block_layout, "WIDEST_BLOCK", 6)
    q, k, v = random_qkv(length)
    offset = torch.arange(length)[:, None] - torch.arange(length)
    mine = windowed_attention(q, k, v, window, causal=True)
    assert_same_with_gradients(mine, masked_softmax(q, k, v, (offset >= 0) & (offset < window)), (q, k, v))


def test_padding_is_never_seen_and_its_amount_changes_nothing():
    attention = SlidingWindowAttention(32, 4, window=4, global_tokens=2).double()
    texts = torch.randn(2, 42, 32, dtype=torch.float64)
    mask = torch.arange(42) < torch.tensor([[30], [9]])
    padded = attention(texts, mask=mask)
    for index, length in enumerate((30, 9)):
        alone = attention(texts[index : index + 1, :length])
        torch.testing.assert_close(padded[index : index + 1, :length], alone, rtol=0, atol=1e-12)


def test_nothing_near_the_matrix_of_all_scores_is_made():
    length = 8192
    attention = SlidingWindowAttention(8, 1, window=64, global_tokens=8)
    x = torch.randn(1, 8 + length, 8, requires_grad=True)
    with LargestTensor() as largest:
        attention(x).sum().backward()
    assert largest.entries < length * length / 60
