"""The packed cache: grids as written out by hand, real bytes, and attention that a slow oracle agrees with."""

import pytest
import torch

from core.complexity.costs import state_bytes
from core.nn.kv_cache import KvFormat, QuantizedCache, quantized_attention

FORM = KvFormat(bits=2, group_size=8, window=3)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def nearest(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Of one vector, the nearest values of the grid between its least and largest."""
    low, high = values.min().half().float(), values.max()
    scale = ((high - low) / (2**bits - 1)).half().float()
    return low + scale * ((values - low) / scale).round().clamp(0, 2**bits - 1)


def oracle_rounded(form: KvFormat, keys: torch.Tensor, values: torch.Tensor):
    """All whole groups of [T, head_dim], channel by channel and token by token."""
    near_keys, near_values, size = keys.clone(), values.clone(), form.value_group(keys.shape[1])
    for start in range(0, len(keys) // form.group_size * form.group_size, form.group_size):
        tokens = slice(start, start + form.group_size)
        for channel in range(keys.shape[1]):
            near_keys[tokens, channel] = nearest(keys[tokens, channel], form.bits)
    for token in range(len(values)):
        for first in range(0, values.shape[1], size):
            near_values[token, first : first + size] = nearest(values[token, first : first + size], form.bits)
    return near_keys, near_values


def oracle_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, form: KvFormat) -> torch.Tensor:
    """One query after the other [T, head_dim], each over the oldest tokens rounded and the others as they are."""
    near_k, near_v = oracle_rounded(form, k, v)
    mixed = []
    for t in range(len(q)):
        packed = 0
        while t + 1 - (packed + form.group_size) >= form.window:
            packed += form.group_size
        keys = torch.cat((near_k[:packed], k[packed : t + 1]))
        values = torch.cat((near_v[:packed], v[packed : t + 1]))
        mixed.append((q[t] @ keys.T / q.shape[1] ** 0.5).softmax(-1) @ values)
    return torch.stack(mixed)


def test_tokens_leave_the_window_in_whole_groups():
    assert [FORM.n_packed(n) for n in (0, 10, 11, 18, 19, 26, 27)] == [0, 0, 8, 8, 16, 16, 24]
    assert list(FORM.segments(0, 20)) == [(0, 10, 0), (10, 18, 8), (18, 20, 16)]
    assert list(FORM.segments(12, 13)) == [(12, 13, 8)]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("head_dim", [8, 12])
def test_keys_are_rounded_by_channel_and_values_by_token(bits, head_dim):
    form = KvFormat(bits, 8, 0)
    keys, values = random(24, head_dim), random(24, head_dim, seed=1)
    found = form.rounded(keys[None, None], values[None, None])
    for near, expected in zip(found, oracle_rounded(form, keys, values), strict=True):
        torch.testing.assert_close(near[0, 0], expected)


@pytest.mark.parametrize("pieces", [[40], [1] * 40, [13, 1, 1, 20, 5]])
@pytest.mark.parametrize("form", [FORM, KvFormat(4, 16, 0), KvFormat(8, 8, 100)], ids=str)
def test_every_way_to_cut_a_text_attends_as_the_oracle(form, pieces):
    q, k, v = (random(40, 16, seed=seed) for seed in range(3))
    cache, parts, start = QuantizedCache(form), [], 0
    for n in pieces:
        piece = slice(start, start + n)
        keys, values = cache.append(k[None, None, piece], v[None, None, piece])
        parts.append(quantized_attention(q[None, None, piece], keys, values, form))
        start += n
    torch.testing.assert_close(torch.cat(parts, dim=2)[0, 0], oracle_attention(q, k, v, form), rtol=1e-4, atol=1e-5)
    assert cache.length == 40


def test_keys_are_hidden_by_a_mask_of_either_kind():
    q, k, v = (random(2, 1, 30, 8, seed=seed) for seed in range(3))
    seen = torch.ones(2, 1, 1, 30, dtype=torch.bool)
    seen[0, ..., :5] = False
    rows = seen.expand(2, 1, 30, 30) & torch.ones(30, 30, dtype=torch.bool).tril()
    added = torch.zeros(2, 1, 30, 30).masked_fill(~rows, torch.finfo(torch.float32).min)
    expected = quantized_attention(q, k, v, FORM, allowed=rows)[:, :, 5:]
    free = quantized_attention(q, k, v, FORM)
    torch.testing.assert_close(expected[1], free[1, :, 5:])
    assert not torch.allclose(expected[0], free[0, :, 5:], atol=1e-2)
    for mask in (seen, added):
        torch.testing.assert_close(quantized_attention(q, k, v, FORM, allowed=mask)[:, :, 5:], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bytes_are_those_of_packed_codes_and_grids(bits, dtype):
    form, cache = KvFormat(bits, 32, 16), QuantizedCache(KvFormat(bits, 32, 16))
    for _ in range(16 + 96):
        cache.append(random(1, 2, 1, 64, dtype=dtype), random(1, 2, 1, 64, dtype=dtype))
    recent = 2 * 16 * 2 * 64 * dtype.itemsize
    assert form.bytes_per_token(2, 64, dtype) == 2 * 2 * 64 * (bits + 1) / 8  # two halves for 32 codes: one bit
    assert state_bytes(cache) - recent == 96 * form.bytes_per_token(2, 64, dtype)


def test_values_beyond_half_precision_stay_finite():
    keys, values = 1e6 * random(1, 1, 16, 8), torch.zeros(1, 1, 16, 8)
    near_keys, near_values = KvFormat(4, 8, 0).rounded(keys, values)
    assert near_keys.isfinite().all()
    assert torch.equal(near_values, values)
