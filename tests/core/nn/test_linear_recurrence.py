"""Three forms of one recurrence: each against the sums written out, and against one another."""

import pytest
import torch

from core.nn.attention.linear_recurrence import chunkwise, parallel, recurrent
from core.nn.attention.retention import log_decays


def given(length, heads=3, d_k=4, d_v=6):
    torch.manual_seed(0)
    shapes = [(2, heads, length, d) for d in (d_k, d_k, d_v)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def written_out(q, k, v, gammas):
    """o_n = sum over m <= n of gamma^(n - m) (q_n k_m) v_m, by loops."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for h, gamma in enumerate(gammas):
        for n in range(q.shape[2]):
            for m in range(n + 1):
                score = (q[:, h, n] * k[:, h, m]).sum(-1, keepdim=True)
                out[:, h, n] += gamma ** (n - m) * score * v[:, h, m]
    return out


def test_two_tokens_by_hand():
    q, k, v = (torch.tensor([[[[a], [b]]]], dtype=torch.float64) for a, b in ((2, 3), (5, 7), (11, 13)))
    log_decay = torch.tensor([0.5], dtype=torch.float64).log()
    expected = torch.tensor([2 * 5 * 11, 0.5 * 3 * 5 * 11 + 3 * 7 * 13], dtype=torch.float64)
    for mixed in (parallel(q, k, v, log_decay), recurrent(q, k, v, log_decay)[0], chunkwise(q, k, v, log_decay)[0]):
        torch.testing.assert_close(mixed.flatten(), expected)


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (4, 4), (5, 4), (12, 4), (23, 8), (9, 16)])
def test_all_forms_are_the_sum_written_out_and_have_its_gradient(length, chunk):
    inputs = given(length)
    gammas = [0.5, 0.9, 1.0]
    log_decay = torch.tensor(gammas, dtype=torch.float64).log()
    expected = written_out(*inputs, gammas)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, inputs, upstream)
    forms = [
        parallel(*inputs, log_decay),
        recurrent(*inputs, log_decay)[0],
        chunkwise(*inputs, log_decay, chunk=chunk)[0],
    ]
    for mixed in forms:
        torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-13)
        for mine, theirs in zip(torch.autograd.grad(mixed, inputs, upstream), gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_the_forms_of_retention_agree_to_the_last_digits_before_any_norm():
    q, k, v = given(200, heads=4, d_k=8, d_v=16)
    k = k * 8**-0.5
    decays = log_decays(4)
    whole = parallel(q, k, v, decays)
    stepped, state = recurrent(q, k, v, decays)
    chunked, other = chunkwise(q, k, v, decays, chunk=64)
    scale = whole.abs().max()
    assert (whole - stepped).abs().max() / scale < 2e-15
    assert (whole - chunked).abs().max() / scale < 2e-15
    torch.testing.assert_close(state, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", [recurrent, chunkwise])
@pytest.mark.parametrize("pieces", [[1, 29], [17, 13], [10, 10, 10], [29, 1]])
def test_a_text_cut_in_pieces_passes_its_state_on(form, pieces):
    q, k, v = given(30)
    log_decay = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64).log()
    options = {"chunk": 8} if form is chunkwise else {}
    whole, last = form(q, k, v, log_decay, **options)
    state, outputs = None, []
    for parts in zip(*(x.split(pieces, dim=2) for x in (q, k, v)), strict=True):
        mixed, state = form(*parts, log_decay, state, **options)
        outputs.append(mixed)
    torch.testing.assert_close(torch.cat(outputs, dim=2), whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-13)


def test_chunks_make_no_matrix_of_all_pairs():
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.append(max((t.numel() for t in (out if isinstance(out, (tuple, list)) else [out])), default=0))
            return out

    largest = []
    for length in (256, 512):
        q, k, v = (x.detach() for x in given(length))
        sizes.clear()
        with Watch():
            chunkwise(q, k, v, log_decays(3), chunk=16)
        largest.append(max(sizes))
    assert largest[1] == 2 * largest[0]
