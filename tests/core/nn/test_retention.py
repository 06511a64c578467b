import pytest
import torch
from torch.nn import functional as F

from core.nn.attention.full import FullAttention
from core.nn.attention.linear_recurrence import parallel
from core.nn.attention.retention import Retention, log_decays
from core.nn.catalogue import REPLACEMENTS


def made(dim=32, heads=4, **settings):
    torch.manual_seed(0)
    retention = Retention(dim, heads, causal=True, **settings).double()
    retention.initialize_(torch.Generator().manual_seed(1))
    return retention


def as_written(retention, x):
    """Equations 5, 6 and 8 of the paper with D as a matrix; complex numbers in place of rotations of pairs."""
    heads, d, width = retention.heads, retention.head_dim, retention.value_dim
    n = torch.arange(x.shape[1])
    theta = 10000.0 ** -(torch.arange(0, d, 2) / d)
    turn = torch.polar(torch.ones(1, 1), n[:, None] * theta)  # e^(i n theta): [T, d / 2]

    def turned(linear):
        first, second = linear(x).unflatten(2, (heads, d)).transpose(1, 2).chunk(2, dim=-1)
        return torch.complex(first, second) * turn

    q, k = turned(retention.q), turned(retention.k) * d**-0.5
    v = retention.v(x).unflatten(2, (heads, width)).transpose(1, 2)
    outputs = []
    for h in range(heads):
        gamma = 1 - 2.0 ** (-5 - h)
        decay = torch.tensor([[gamma ** (i - j) if i >= j else 0.0 for j in n.tolist()] for i in n.tolist()])
        scores = (q[:, h] @ k[:, h].mH).real
        o = (scores * decay.double()) @ v[:, h]
        outputs.append((o - o.mean(-1, keepdim=True)) / (o.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt())
    gate = retention.gate(x)
    return retention.o(gate * gate.sigmoid() * torch.cat(outputs, dim=-1))


@pytest.mark.parametrize("value_factor", [1, 2])
@pytest.mark.parametrize("length", [20, 150])
def test_retention_is_as_written_in_its_paper(value_factor, length):
    retention = made(value_factor=value_factor)
    x = torch.randn(2, length, 32, dtype=torch.float64)
    torch.testing.assert_close(retention(x), as_written(retention, x), rtol=0, atol=1e-5)  # angles are float32


def test_decays_are_those_of_the_paper():
    torch.testing.assert_close(
        log_decays(3).exp(), torch.tensor([0.96875, 0.984375, 0.9921875], dtype=torch.float64), rtol=0, atol=1e-15
    )
    assert (log_decays(64) < 0).all()


def test_normalisers_of_the_scores_cancel_in_the_norm_and_only_there():
    """The authors' parallel form: D / sqrt(row sum), then scores / max(|row sum|, 1)."""
    torch.manual_seed(0)
    q, k, v = (30 * torch.randn(1, 3, 50, 8, dtype=torch.float64) for _ in range(3))
    plain = parallel(q, k, v, log_decays(3))
    place = torch.arange(50)
    decay = (log_decays(3)[:, None, None] * (place[:, None] - place)).exp().tril()
    scores = q @ k.mT * (decay / decay.sum(-1, keepdim=True).sqrt())
    normalised = scores / scores.sum(-1, keepdim=True).abs().clamp(min=1) @ v
    assert not torch.allclose(plain, normalised, rtol=0.5)
    norm = [F.layer_norm(o, (8,), eps=1e-12) for o in (plain, normalised)]
    torch.testing.assert_close(*norm, rtol=0, atol=1e-6)


def test_the_norm_sees_one_head_and_one_position():
    retention = made()
    x = torch.randn(1, 70, 32, dtype=torch.float64)
    inputs = []
    retention.o.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    retention(x)
    heads = (inputs[0] / F.silu(retention.gate(x))).unflatten(2, (4, 8))
    torch.testing.assert_close(heads.mean(-1), torch.zeros(1, 70, 4, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (heads.var(-1, unbiased=False) <= 1).all() and (heads.mean((1, 3)).abs() < 1e-9).all()
    retention(x[:, :30])
    torch.testing.assert_close(inputs[1], inputs[0][:, :30], rtol=0, atol=1e-12)  # later tokens change nothing


@pytest.mark.parametrize("settings", [{}, {"kv_heads": 2}, {"value_factor": 2, "kv_heads": 1}, {"rotary": 100.0}])
@pytest.mark.parametrize("pieces", [[1] * 90, [70, 1, 1, 18], [89, 1]])
def test_retention_with_its_cache_equals_recomputation(settings, pieces):
    retention = made(**settings)
    x = torch.randn(2, 90, 32, dtype=torch.float64)
    cache = retention.make_cache(90)
    parts = [retention(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), retention(x), rtol=0, atol=1e-11)
    assert cache.length == 90
    assert {name: t.shape for name, t in cache.tensors.items()} == {"state": (2, 4, 8, retention.value_dim)}


def test_weights_are_taken_over_where_shapes_allow():
    full = FullAttention(32, 4, kv_heads=2, causal=True, rotary=500.0)
    same, wider = (Retention.from_attention(full, value_factor=factor) for factor in (1, 2))
    assert all(getattr(same, name) is getattr(full, name) for name in ("q", "k", "v", "o", "rotary"))
    assert wider.q is full.q and wider.k is full.k and wider.rotary is full.rotary
    assert wider.v.weight.shape == (2 * 16, 32) and wider.o.weight.shape == (32, 64)
    assert Retention.from_attention(FullAttention(32, 4, causal=True)).rotary.base == 10000.0


def test_fresh_parameters_have_the_bounds_of_the_authors_code():
    retention = Retention(64, 4, value_factor=2, causal=True)
    retention.initialize_(torch.Generator().manual_seed(0))
    for weight, gain in ((retention.gate.weight, 2**-2.5), (retention.v.weight, 2**-2.5), (retention.o.weight, 1.0)):
        bound = gain * (6 / (64 + 128)) ** 0.5
        assert 0.98 * bound < weight.abs().max() <= bound
    assert not retention.v.bias.any() and not retention.o.bias.any()


def test_half_precision_is_kept_out_of_the_state():
    retention = made(value_factor=2).bfloat16()
    cache = retention.make_cache(200)
    x = torch.randn(1, 200, 32).bfloat16()
    mixed = retention(x, cache=cache)
    assert mixed.dtype == torch.bfloat16 and cache.tensors["state"].dtype == torch.float32
    torch.testing.assert_close(mixed, retention(x), rtol=0.1, atol=0.02)


def test_arguments_make_an_equal_module_and_both_sides_are_refused():
    for settings in ({}, {"value_factor": 2, "kv_heads": 2, "rotary": 500.0, "bias": False}):
        retention = Retention(32, 4, causal=True, **settings)
        assert REPLACEMENTS["Retention"] is Retention
        with torch.device("meta"):
            again = Retention(**retention.arguments())
            again.initialize_(None)
        assert {n: p.shape for n, p in again.named_parameters()} == {
            n: p.shape for n, p in retention.named_parameters()
        }
        assert again.arguments() == retention.arguments()
        assert again(torch.empty(1, 100, 32, device="meta")).shape == (1, 100, 32)
    with pytest.raises(ValueError, match="causal"):
        Retention(32, 4)
