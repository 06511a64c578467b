"""The recurrence of RWKV-5 and RWKV-6: chunks equal the loop over tokens, also where decays are extreme."""

import pytest
import torch

from core.nn.rwkv import matrix_wkv as module
from core.nn.rwkv.matrix_wkv import matrix_wkv


def drawn(length: int, *, shared: bool = False, dtype: torch.dtype = torch.float64):
    """r, k, v, log_decay, u and a state, with gradients; `shared` decays are the same in both examples."""
    generator = torch.Generator().manual_seed(length)
    heads, n = 3, 4

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    r, k, v = (normal(2, heads, length, n) for _ in range(3))
    log_decay = -normal(1 if shared else 2, heads, length, n).exp()
    return [x.requires_grad_() for x in (r, k, v, log_decay, normal(heads, n), normal(2, heads, n, n))]


def loop(r, k, v, log_decay, u, state):
    """o_t = r_t (diag(u) k_t^T v_t + S), then S = diag(w_t) S + k_t^T v_t."""
    decays = log_decay.exp().expand_as(k)
    outputs = []
    for t in range(r.shape[2]):
        outer = k[:, :, t, :, None] * v[:, :, t, None, :]
        outputs.append((r[:, :, t, None] @ (u[:, :, None] * outer + state))[:, :, 0])
        state = decays[:, :, t, :, None] * state + outer
    return torch.stack(outputs, dim=2), state


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 13, 16, 37])
def test_chunks_are_the_loop_forward_and_backward(length, shared, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    inputs = drawn(length, shared=shared)
    mine, theirs = matrix_wkv(*inputs), loop(*inputs)
    upstream = [torch.randn_like(x) for x in mine]
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)
    gradients = (torch.autograd.grad(outputs, inputs, upstream) for outputs in (mine, theirs))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pieces", [[1] * 70, [64, 6], [5, 65], [1, 69]])
def test_pieces_that_pass_the_state_are_the_whole(pieces):
    *tokens, u, _ = drawn(70)
    whole, after = loop(*tokens, u, torch.zeros(2, 3, 4, 4, dtype=torch.float64))
    state, parts = None, []
    for piece in zip(*(x.split(pieces, dim=2) for x in tokens), strict=True):
        part, state = matrix_wkv(*piece, u, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)
    torch.testing.assert_close(state, after)


@pytest.mark.parametrize("strength", [1.0, 30.0, 3000.0])
def test_fast_and_slow_decays_side_by_side_neither_overflow_nor_drown_each_other(strength):
    r, k, v, log_decay, u, state = drawn(96, dtype=torch.float32)
    fast = torch.rand(log_decay.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    log_decay = torch.where(fast, -strength, -0.01).requires_grad_()
    inputs = (r, k, v, log_decay, u, state)
    o, _ = matrix_wkv(*inputs)
    exact, _ = loop(*(x.double() for x in inputs))
    torch.testing.assert_close(o.double(), exact, atol=2e-5, rtol=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(o.square().sum(), inputs))


def test_a_token_is_blind_to_those_after_it():
    inputs = drawn(20)
    o, _ = matrix_wkv(*inputs)
    for gradient in torch.autograd.grad(o[:, :, 7].sum(), inputs[1:3]):
        assert gradient[:, :, :8].any() and not gradient[:, :, 8:].any()
