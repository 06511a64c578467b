"""RWKV-4's mean: the tree equals the formula and the loop over tokens, and nothing overflows."""

import pytest
import torch

from core.nn.rwkv.wkv import Wkv, empty_state, wkv


def drawn(length: int, channels: int = 5, dtype: torch.dtype = torch.float64):
    """k, v, w and u with gradients; w from slow to fast decays."""
    generator = torch.Generator().manual_seed(length)
    k, v = (torch.randn(2, length, channels, generator=generator, dtype=torch.float64) for _ in range(2))
    w = -torch.linspace(-5, 3, channels, dtype=torch.float64).exp()
    u = torch.randn(channels, generator=generator, dtype=torch.float64)
    return [x.to(dtype).requires_grad_() for x in (k, v, w, u)]


def formula(k, v, w, u):
    """The sums as they are written, T x T exponentials."""
    t = torch.arange(k.shape[1])
    age = (t[:, None] - 1 - t[None, :])[None, :, :, None]  # [1, t, i, 1]
    terms = (age.clamp(min=0) * w + k[:, None]).exp() * (age >= 0)
    own = (u + k).exp()
    return ((terms * v[:, None]).sum(2) + own * v) / (terms.sum(2) + own)


def loop(k, v, w, u, state):
    """The authors' loop over tokens."""
    a, b, p = state.unbind(1)
    outputs = []
    for key, value in zip(k.unbind(1), v.unbind(1), strict=True):
        m = torch.maximum(p, u + key)
        past, now = (p - m).exp(), (u + key - m).exp()
        outputs.append((past * a + now * value) / (past * b + now))
        m = torch.maximum(p + w, key)
        past, now = (p + w - m).exp(), (key - m).exp()
        a, b, p = past * a + now * value, past * b + now, m
    return torch.stack(outputs, dim=1), torch.stack((a, b, p), dim=1)


def nothing(k):
    return empty_state(k.shape[0], k.shape[2], k.dtype, k.device)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 13, 32, 65])
def test_the_tree_is_the_formula_and_its_gradient(length):
    inputs = drawn(length)
    mine = wkv(*inputs, nothing(inputs[0]))[0]
    theirs = formula(*inputs)
    torch.testing.assert_close(mine, theirs)
    upstream = torch.randn_like(mine)
    for a, b in zip(
        torch.autograd.grad(mine, inputs, upstream),
        torch.autograd.grad(theirs, inputs, upstream, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pieces", [[1] * 21, [8, 1, 12], [20, 1]])
def test_pieces_that_pass_the_state_are_the_whole(pieces):
    k, v, w, u = drawn(21)
    whole, after = loop(k, v, w, u, nothing(k))
    state, parts = nothing(k), []
    for key, value in zip(k.split(pieces, dim=1), v.split(pieces, dim=1), strict=True):
        part, state = wkv(key, value, w, u, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state[:, :2] * state[:, 2:].exp(), after[:, :2] * after[:, 2:].exp())
    with torch.no_grad():
        torch.testing.assert_close(wkv(k, v, w, u, nothing(k))[0], whole)


def test_gradients_after_a_state_are_those_of_the_loop():
    k, v, w, u = drawn(11)
    state = wkv(*drawn(9), nothing(k))[1]
    assert not state.requires_grad
    upstream = torch.randn_like(k)
    mine = torch.autograd.grad(wkv(k, v, w, u, state)[0], (k, v, w, u), upstream)
    theirs = torch.autograd.grad(loop(k, v, w, u, state)[0], (k, v, w, u), upstream)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shift", [2000.0, -2000.0])
def test_a_constant_added_to_all_keys_changes_nothing(shift):
    k, v, w, u = drawn(40)
    y = wkv(k, v, w, u, nothing(k))[0]
    moved = wkv(k + shift, v, w, u, nothing(k))[0]
    torch.testing.assert_close(moved, y)
    k, v, w, u = drawn(40, dtype=torch.float32)
    moved = wkv(k + shift, v, w, u, nothing(k))[0]
    gradients = torch.autograd.grad(moved.sum(), (k, v, w, u))
    assert all(x.isfinite().all() for x in (moved, *gradients))
    torch.testing.assert_close(moved, y.float(), atol=2e-3, rtol=2e-3)  # what 2000 leaves of 24 bits


def test_keys_far_apart_stay_finite():
    k, v, w, u = drawn(64, dtype=torch.float32)
    k = (300 * k.detach()).requires_grad_()
    y = wkv(k, v, w, u, nothing(k))[0]
    exact, _ = loop(*(x.double() for x in (k, v, w, u)), nothing(k).double())
    torch.testing.assert_close(y.double(), exact, atol=1e-4, rtol=1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), (k, v, w, u)))


def test_a_token_is_blind_to_those_after_it():
    k, v, w, u = drawn(10)
    y = wkv(k, v, w, u, nothing(k))[0]
    for gradient in torch.autograd.grad(y[:, 4].sum(), (k, v)):
        assert gradient[:, :5].all() and not gradient[:, 5:].any()


def test_the_module_computes_in_float32_and_counts_its_recurrence():
    module = Wkv(4)
    k, v = torch.randn(2, 2, 6, 4)
    y, state = module(k.bfloat16(), v.bfloat16())
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    expected = formula(k.bfloat16().float(), v.bfloat16().float(), -torch.ones(4), torch.zeros(4))
    torch.testing.assert_close(y, expected.bfloat16())
    assert module.macs(k.shape) == 8 * 2 * 6 * 4
