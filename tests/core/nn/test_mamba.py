import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.nn import selective_scan as selective
from core.nn.catalogue import REPLACEMENTS
from core.nn.mamba import Mamba, MambaBlock
from core.nn.scan import linear_scan, linear_scan_backward
from core.nn.selective_scan import SelectiveScan, selective_scan
from core.nn.transformer import TransformerBlock


def loop(a, b, initial):
    """h_t = a_t h_(t-1) + b_t, token after token."""
    states = []
    for t in range(a.shape[1]):
        initial = a[:, t] * initial + b[:, t]
        states.append(initial)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 17, 100])
def test_the_scan_is_the_loop_and_has_its_gradient(length):
    torch.manual_seed(0)
    a = torch.rand(2, length, 3, 4, dtype=torch.float64, requires_grad=True)
    b, initial = (torch.randn(*shape, 3, 4, dtype=torch.float64, requires_grad=True) for shape in ((2, length), (2,)))
    expected = loop(a, b, initial)
    mine = linear_scan(a.detach(), b.detach(), initial.detach())
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-13)
    upstream, last = torch.randn_like(mine), torch.randn_like(mine[:, 0])
    by_a, by_b, by_initial = torch.autograd.grad(
        (expected * upstream).sum() + (expected[:, -1] * last).sum(), (a, b, initial)
    )
    g = linear_scan_backward(a.detach(), upstream, last)
    torch.testing.assert_close(g, by_b, rtol=0, atol=1e-12)
    torch.testing.assert_close(g * torch.cat((initial[:, None], mine[:, :-1]), dim=1), by_a, rtol=0, atol=1e-12)
    torch.testing.assert_close(a[:, 0] * g[:, 0], by_initial, rtol=0, atol=1e-12)


def test_the_scan_stays_exact_where_quotients_of_products_would_overflow():
    a = torch.full((1, 400, 1), 1e-30)
    a[:, ::50] = 0.0
    b = torch.randn(1, 400, 1)
    torch.testing.assert_close(linear_scan(a, b, torch.ones(1, 1)), loop(a, b, torch.ones(1, 1)))


def given(length, channels=6, n_states=3):
    torch.manual_seed(0)
    x, delta = (torch.randn(2, length, channels, dtype=torch.float64) for _ in range(2))
    B, C = (torch.randn(2, length, n_states, dtype=torch.float64) for _ in range(2))
    A = -torch.rand(n_states, channels, dtype=torch.float64) * 4
    return [t.requires_grad_() for t in (x, delta.exp(), A, B, C)]


def written_out(x, delta, A, B, C, state=None):
    """Channel after channel: h = exp(delta A) h + delta B x, y = C h."""
    state = torch.zeros(2, *A.shape, dtype=x.dtype) if state is None else state
    outputs = []
    for t in range(x.shape[1]):
        columns = []
        for d in range(x.shape[2]):
            own = (delta[:, t, d, None] * A[:, d]).exp() * state[:, :, d]
            columns.append(own + delta[:, t, d, None] * B[:, t] * x[:, t, d, None])
        state = torch.stack(columns, dim=2)
        outputs.append(torch.einsum("bn,bnd->bd", C[:, t], state))
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize("length", [1, 16, 50])
def test_the_selective_scan_is_the_loop_and_has_its_gradient(length, monkeypatch):
    monkeypatch.setitem(selective.ENTRIES, "cpu", 1)  # blocks of 16 tokens
    inputs = given(length)
    (mine, last), (theirs, other) = selective_scan(*inputs), written_out(*inputs)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, other, rtol=0, atol=1e-12)
    upstream = torch.randn_like(mine)
    for x, y in zip(
        torch.autograd.grad((mine * upstream).sum() + last.sum(), inputs),
        torch.autograd.grad((theirs * upstream).sum() + other.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-11)


def test_blocks_and_pieces_pass_their_state_on():
    inputs = [t.detach() for t in given(40)]
    whole, last = selective_scan(*inputs)
    x, delta, A, B, C = inputs
    state, outputs = None, []
    for pieces in zip(*(t.split([1, 20, 1, 18], dim=1) for t in (x, delta, B, C)), strict=True):
        y, state = selective_scan(pieces[0], pieces[1], A, pieces[2], pieces[3], state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-13)


def test_states_of_a_whole_text_never_exist_together(monkeypatch):
    monkeypatch.setitem(selective.ENTRIES, "cpu", 1)
    lengths = []
    real = selective.linear_scan
    monkeypatch.setattr(selective, "linear_scan", lambda a, b, s: (lengths.append(a.shape[1]), real(a, b, s))[1])
    y, _ = selective_scan(*given(50))
    assert lengths == [16, 16, 16, 2]
    y.sum().backward()
    assert sorted(lengths[4:]) == [2, 16, 16, 16]  # once more, for the gradient


def made(dim=16, **settings):
    torch.manual_seed(0)
    mamba = Mamba(dim, **settings).double()
    mamba.initialize_(torch.Generator().manual_seed(1))
    return mamba


def as_written(mamba, x):
    """Section 3.4 and algorithm 2, the convolution by its taps."""
    inner, gate = (x @ mamba.in_proj.weight.T).chunk(2, dim=-1)
    padded = F.pad(inner, (0, 0, mamba.kernel_size - 1, 0))
    taps = [padded[:, i : i + x.shape[1]] * mamba.conv.weight[:, 0, i] for i in range(mamba.kernel_size)]
    inner = sum(taps) + mamba.conv.bias
    inner = inner * inner.sigmoid()
    low, B, C = (inner @ mamba.x_proj.weight.T).split([mamba.rank, mamba.n_states, mamba.n_states], dim=-1)
    delta = (1 + (low @ mamba.dt_proj.weight.T + mamba.scan.delta_bias).exp()).log()
    A = -mamba.scan.A_log.view(mamba.n_states, -1).exp()
    y, _ = written_out(inner, delta, A, B, C)
    return ((y + mamba.scan.D * inner) * gate * gate.sigmoid()) @ mamba.out_proj.weight.T


@pytest.mark.parametrize("settings", [{}, {"n_states": 3, "expand": 3, "kernel_size": 2}])
def test_mamba_is_as_written_in_its_paper(settings):
    mamba = made(**settings)
    nn.init.normal_(mamba.scan.D)
    x = torch.randn(2, 25, 16, dtype=torch.float64)
    torch.testing.assert_close(mamba(x), as_written(mamba, x), rtol=0, atol=1e-13)


def test_fresh_parameters_are_those_of_the_authors():
    mamba = Mamba(64)
    mamba.initialize_(torch.Generator().manual_seed(0), n_layers=4)
    A = mamba.scan.A_log.exp().view(16, 128)
    torch.testing.assert_close(A, torch.arange(1.0, 17.0)[:, None].expand(16, 128))
    delta = F.softplus(mamba.scan.delta_bias)
    assert 0.001 <= delta.min() < 0.002 and 0.05 < delta.max() <= 0.1001
    assert abs(delta.log().mean() - torch.tensor([0.001, 0.1]).log().mean()) < 0.3  # even in the logarithm
    assert (mamba.scan.D == 1).all() and mamba.scan.A_log.dim() == 1  # trainings decay matrices
    bounds = {"in_proj": 64**-0.5, "x_proj": 128**-0.5, "dt_proj": 4**-0.5, "out_proj": 128**-0.5 / 2, "conv": 0.5}
    for name, bound in bounds.items():
        assert 0.95 * bound < mamba.get_submodule(name).weight.abs().max() <= bound, name


@pytest.mark.parametrize("cls", [Mamba, MambaBlock])
@pytest.mark.parametrize("pieces", [[1] * 40, [20, 1, 1, 18], [2, 38], [39, 1]])
def test_mamba_with_its_cache_equals_recomputation(cls, pieces):
    torch.manual_seed(0)
    mamba = cls(16).double()
    mamba.initialize_(torch.Generator().manual_seed(1))
    x = torch.randn(2, 40, 16, dtype=torch.float64)
    cache = mamba.make_cache(40)
    parts = [mamba(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), mamba(x), rtol=0, atol=1e-12)
    assert cache.length == 40
    for one in (cache.first, cache.second) if cls is MambaBlock else (cache,):
        assert {name: t.shape for name, t in one.tensors.items()} == {"window": (2, 3, 32), "state": (2, 16, 32)}


def test_a_block_keeps_the_norms_of_the_one_before():
    before = TransformerBlock(16, nn.Identity(), nn.Identity())
    block = MambaBlock(16)
    block.adopt(before)
    assert block.norm1 is before.norm1 and block.norm2 is before.norm2
    nn.init.normal_(block.norm2.weight)
    block.initialize_(torch.Generator().manual_seed(0))
    x = torch.randn(1, 9, 16)
    middle = x + block.mamba1(block.norm1(x))
    torch.testing.assert_close(block(x), middle + block.mamba2(block.norm2(middle)))
    n_weights = sum(p.numel() for m in (block.mamba1, block.mamba2) for p in (m.in_proj.weight, m.out_proj.weight))
    assert n_weights == 12 * 16**2  # of attention and a feed-forward network together


def test_half_precision_is_kept_out_of_the_state():
    mamba = made(dim=32).bfloat16()
    cache = mamba.make_cache(100)
    x = torch.randn(1, 100, 32).bfloat16()
    assert mamba(x, cache=cache).dtype == torch.bfloat16
    assert cache.tensors["state"].dtype == torch.float32


@pytest.mark.parametrize("cls", [Mamba, MambaBlock, SelectiveScan])
def test_arguments_make_an_equal_module(cls):
    module = SelectiveScan(8, 3) if cls is SelectiveScan else cls(32, n_states=3, expand=1, kernel_size=2)
    assert REPLACEMENTS[cls.__name__] is cls
    with torch.device("meta"):
        again = cls(**module.arguments())
        again.initialize_(None)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
    assert again.arguments() == module.arguments()
    if cls is not SelectiveScan:
        assert again(torch.empty(1, 100, 32, device="meta")).shape == (1, 100, 32)


def test_the_scans_work_is_counted():
    assert SelectiveScan(8, 3).macs(torch.Size((2, 5, 8))) == 2 * 5 * 8 * 3 * 4
