import pytest
import torch
from torch.nn import functional as F

from core.nn.attention.full import FullAttention
from core.nn.attention.linear_attention import LinearAttention
from core.nn.catalogue import REPLACEMENTS
from core.nn.rotary import rotate


def made(**settings):
    torch.manual_seed(0)
    full = FullAttention(32, 4, **settings).double()
    return LinearAttention.from_attention(full)


def oracle(attention, x, mask=None):
    """All pairs: numerators turned where there are rotary positions, denominators not."""
    q, k, v = (
        part.repeat_interleave(4 // (part.shape[2] // 8), dim=2).unflatten(2, (4, 8)).transpose(1, 2)
        if part.shape[2] == 32
        else part.unflatten(2, (-1, 8)).repeat_interleave(32 // part.shape[2], dim=2).transpose(1, 2)
        for part in (attention.q(x), attention.k(x), attention.v(x))
    )
    q, k = F.elu(q) + 1, F.elu(k) + 1
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
    seen = seen.tril() if attention.causal else seen
    seen = seen if mask is None else seen & mask[:, None, None, :]
    below = (q @ k.mT).masked_fill(~seen, 0)
    above = below
    if attention.rotary is not None:
        angle = torch.arange(x.shape[1])[:, None].float() * attention.rotary.inverse_frequency.float()
        angle = torch.cat((angle, angle), dim=-1)
        q, k = (rotate(part, angle.cos().double(), angle.sin().double()) for part in (q, k))
        above = (q @ k.mT).masked_fill(~seen, 0)
    mixed = above @ v / below.sum(-1, keepdim=True).clamp(min=1e-6)
    return attention.o(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("settings", [{}, {"kv_heads": 2}, {"rotary": 100.0}, {"kv_heads": 1, "rotary": 100.0}])
@pytest.mark.parametrize("length", [1, 20, 150])
def test_it_is_the_quadratic_form_and_has_its_gradient(causal, settings, length):
    attention = made(causal=causal, **settings)
    x = torch.randn(2, length, 32, dtype=torch.float64, requires_grad=True)
    mine, theirs = attention(x), oracle(attention, x)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    upstream = torch.randn_like(mine)
    wanted = [x, *attention.parameters()]
    for a, b in zip(
        torch.autograd.grad(mine, wanted, upstream), torch.autograd.grad(theirs, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rotary", [None, 100.0])
def test_padding_is_seen_by_no_token(causal, rotary):
    attention = made(causal=causal, rotary=rotary)
    mask = torch.ones(2, 80, dtype=torch.bool)
    mask[0, 50:] = False
    mask[1, :3] = False  # causal: tokens that see nothing
    x = torch.randn(2, 80, 32, dtype=torch.float64)
    mixed = attention(x, mask=mask)
    torch.testing.assert_close(mixed, oracle(attention, x, mask), rtol=0, atol=1e-12)
    other = torch.where(mask[..., None], x, torch.randn_like(x))
    torch.testing.assert_close(attention(other, mask=mask)[mask], mixed[mask], rtol=0, atol=1e-12)
    assert mixed.isfinite().all()
    torch.testing.assert_close(mixed[0, :50], attention(x[:1, :50])[0], rtol=0, atol=1e-12)


def test_an_output_is_a_mean_of_values():
    attention = made(causal=True)
    with torch.no_grad():
        attention.v.weight.zero_()
        attention.v.bias.copy_(torch.arange(32.0))
        attention.o.weight.copy_(torch.eye(32))
        attention.o.bias.zero_()
    mixed = attention(torch.randn(1, 100, 32, dtype=torch.float64))
    torch.testing.assert_close(mixed, torch.arange(32.0, dtype=torch.float64).expand(1, 100, 32))


@pytest.mark.parametrize("rotary", [None, 100.0])
@pytest.mark.parametrize("pieces", [[1] * 90, [70, 1, 1, 18], [89, 1]])
def test_linear_attention_with_its_cache_equals_recomputation(rotary, pieces):
    attention = made(causal=True, kv_heads=2, rotary=rotary)
    x = torch.randn(2, 90, 32, dtype=torch.float64)
    cache = attention.make_cache(90)
    parts = [attention(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), attention(x), rtol=0, atol=1e-12)
    assert cache.length == 90
    assert {name: t.shape for name, t in cache.tensors.items()} == {"sum": (2, 4, 8, 8), "keys": (2, 2, 1, 8)}


def test_sums_are_float32_in_a_model_of_half_precision():
    """In bfloat16 a sum of 256 and more ones stays at 256."""
    attention = made(causal=True).bfloat16()
    with torch.no_grad():
        for linear in (attention.q, attention.k):
            linear.weight.zero_()
            linear.bias.zero_()  # phi(0) = 1
    cache = attention.make_cache(2000)
    attention(torch.randn(1, 2000, 32).bfloat16(), cache=cache)
    assert cache.tensors["keys"].dtype == torch.float32 and (cache.tensors["keys"] == 2000).all()


def test_features_far_below_zero_leave_it_finite():
    attention = made(causal=True).float()
    with torch.no_grad():
        attention.q.bias.fill_(-200.0)
    x = torch.randn(1, 70, 32, requires_grad=True)
    attention(x).sum().backward()
    assert attention(x).isfinite().all() and x.grad.isfinite().all()


def test_arguments_make_an_equal_module():
    attention = LinearAttention(32, 4, kv_heads=2, causal=True, rotary=500.0, bias=False)
    assert REPLACEMENTS["LinearAttention"] is LinearAttention
    with torch.device("meta"):
        again = LinearAttention(**attention.arguments())
    assert again.arguments() == attention.arguments()
    assert again(torch.empty(1, 100, 32, device="meta")).shape == (1, 100, 32)
