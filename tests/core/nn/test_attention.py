import pytest
import torch

from core.nn.attention import ATTENTION, FullAttention, SlidingWindowAttention
from core.nn.attention.sliding_window import windowed_attention
from core.nn.catalogue import REPLACEMENTS


def oracle(q, k, v, window, *, causal, mask=None):
    """Masked softmax over the whole T x T matrix, written out."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    i, j = torch.arange(q.shape[2])[:, None], torch.arange(q.shape[2])[None, :]
    seen = (j <= i) & (j > i - window) if causal else (i - j).abs() < window
    if mask is not None:
        seen = seen & mask[:, None, None, :]
    scores = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1).nan_to_num() @ v


def qkv(length, heads=4, kv_heads=2, head_dim=8):
    torch.manual_seed(0)
    shapes = [(2, heads, length, head_dim), (2, kv_heads, length, head_dim), (2, kv_heads, length, head_dim)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("length", "window"), [(1, 4), (4, 4), (5, 4), (8, 4), (23, 4), (24, 8), (17, 1), (9, 16)])
def test_window_equals_masked_softmax_forward_and_backward(length, window, causal):
    inputs = qkv(length)
    mine = windowed_attention(*inputs, window, causal=causal)
    theirs = oracle(*inputs, window, causal=causal)
    torch.testing.assert_close(mine, theirs)
    upstream = torch.randn_like(mine)
    for a, b in zip(
        torch.autograd.grad(mine, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("causal", [True, False])
def test_window_sees_no_masked_token(causal):
    q, k, v = qkv(21)
    mask = torch.ones(2, 21, dtype=torch.bool)
    mask[0, 9:] = False  # some queries are left with nothing to see
    mask[1, 3] = False
    mine = windowed_attention(q, k, v, 4, causal=causal, mask=mask)
    theirs = oracle(q, k, v, 4, causal=causal, mask=mask)
    some = theirs != 0
    torch.testing.assert_close(mine[some], theirs[some])
    assert (~some).sum() == 288  # of the first example, 9 queries of 4 heads of width 8
    assert all(g.isfinite().all() for g in torch.autograd.grad(mine.sum(), (q, k, v)))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rotary", [None, 10000.0])
def test_window_as_long_as_the_text_is_full_attention(causal, rotary):
    full = FullAttention(32, 4, kv_heads=2, causal=causal, rotary=rotary)
    x = torch.randn(2, 12, 32)
    mask = torch.arange(12) < torch.tensor([[12], [7]])
    for window in (12, 40):
        sliding = SlidingWindowAttention.from_attention(full, window=window)
        torch.testing.assert_close(sliding(x), full(x))
        torch.testing.assert_close(sliding(x, mask=mask)[mask], full(x, mask=mask)[mask])
    assert not torch.allclose(SlidingWindowAttention.from_attention(full, window=5)(x), full(x))


@pytest.mark.parametrize("name", ATTENTION)
def test_full_attention_is_softmax_attention_as_written_in_its_paper(name):
    options = {"window": 64} if name == "sliding_window" else {}
    attention = ATTENTION[name](32, 4, kv_heads=2, causal=True, **options)
    x = torch.randn(2, 10, 32)
    q, k, v = (p(x).view(2, 10, -1, 8).transpose(1, 2) for p in (attention.q, attention.k, attention.v))
    expected = attention.o(oracle(q, k, v, 10, causal=True).transpose(1, 2).reshape(2, 10, 32))
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("rotary", [None, 10000.0])
@pytest.mark.parametrize("pieces", [[1] * 30, [13, 1, 1, 5, 10], [30], [4, 26], [2, 2, 26]])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_with_its_cache_equals_recomputation(name, pieces, rotary):
    options = {"window": 4} if name == "sliding_window" else {}
    attention = ATTENTION[name](32, 4, kv_heads=2, causal=True, rotary=rotary, **options)
    x = torch.randn(2, 30, 32)
    cache = attention.make_cache(30)
    parts = [attention(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), attention(x), rtol=1e-5, atol=1e-5)
    assert cache.length == 30


def test_ring_holds_a_window_and_no_more():
    attention = SlidingWindowAttention(32, 4, window=4, causal=True)
    cache = attention.make_cache(1000)
    for _ in range(11):
        attention(torch.randn(1, 1, 32), cache=cache)
    assert cache.keys.shape == (1, 4, 4, 8) and cache.length == 11


def test_rotary_scores_depend_on_distance_alone():
    rotary = FullAttention(16, 2, rotary=100.0).rotary
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(i, j):
        turned_q, _ = rotary(q, q, torch.tensor([i]))
        turned_k, _ = rotary(k, k, torch.tensor([j]))
        return (turned_q * turned_k).sum()

    torch.testing.assert_close(score(7, 3), score(104, 100), rtol=1e-4, atol=1e-5)
    assert not torch.isclose(score(7, 3), score(7, 4))


def test_rotary_turns_a_pair_by_its_angle():
    rotary = FullAttention(2, 1, head_dim=2, rotary=10000.0).rotary
    turned, _ = rotary(torch.tensor([[[[1.0, 0.0]]]]), torch.zeros(1, 1, 1, 2), torch.tensor([2]))
    angle = torch.tensor(2.0)
    torch.testing.assert_close(turned.flatten(), torch.stack([angle.cos(), angle.sin()]))


def test_arguments_make_an_equal_module():
    made = SlidingWindowAttention(32, 4, kv_heads=2, window=6, causal=True, rotary=500.0, bias=False)
    assert REPLACEMENTS["SlidingWindowAttention"] is SlidingWindowAttention
    with torch.device("meta"):
        again = SlidingWindowAttention(**made.arguments())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
    assert again.arguments() == made.arguments()
    assert again(torch.empty(1, 20, 32, device="meta")).shape == (1, 20, 32)
    made.o = torch.nn.Sequential(torch.nn.Linear(32, 2), torch.nn.Linear(2, 32))  # a projection may be swapped too
    assert made.arguments() == again.arguments()


def test_cache_refuses_more_than_it_was_made_for():
    attention = FullAttention(32, 4, causal=True)
    cache = attention.make_cache(4)
    with pytest.raises(ValueError, match="holds 4 tokens"):
        attention(torch.randn(1, 5, 32), cache=cache)
