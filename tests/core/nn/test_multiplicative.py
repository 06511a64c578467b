"""The multiplicative layer: the authors' einsum, permutations, the weights it saves."""

import numpy as np
import pytest
import torch

from core.nn.multiplicative import MultiplicativeLinear


def layer(n_in, n_out, n_modules, **options) -> MultiplicativeLinear:
    made = MultiplicativeLinear(n_in, n_out, n_modules, **options)
    made.initialize_(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(made.bias) if made.bias is not None else None
    return made.double()


@pytest.mark.parametrize("rows", [1, 3, 200])  # gated inputs, and the whole weight
def test_it_is_the_authors_einsum(rows):
    made = layer(12, 20, 4)
    x = torch.randn(rows, 12, dtype=torch.float64)
    gating, projection = made.gates.detach().numpy(), made.projection.detach().numpy().T  # [n, d], [d, m]
    expected = (
        np.einsum("...d,nd,dm->...nm", x.numpy(), gating, projection).reshape(rows, 20) + made.bias.detach().numpy()
    )
    np.testing.assert_allclose(made(x).detach().numpy(), expected, atol=1e-12)


def test_both_ways_of_computing_have_the_same_gradients():
    made, x = layer(6, 40, 2), torch.randn(30, 6, dtype=torch.float64)
    whole = torch.autograd.grad(made(x).square().sum(), list(made.parameters()))
    apart = torch.autograd.grad(torch.cat([made(row) for row in x.split(1)]).square().sum(), list(made.parameters()))
    for a, b in zip(whole, apart, strict=True):
        torch.testing.assert_close(a, b)


def test_any_permutation_is_represented_exactly():
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))  # input i goes to output order[i]
    made = MultiplicativeLinear(24, 24, 4, bias=False)
    with torch.no_grad():
        made.gates.zero_()[order // 6, torch.arange(24)] = 1
        made.projection.zero_()[order % 6, torch.arange(24)] = 1
    x = torch.randn(2, 24)
    expected = torch.empty_like(x)
    expected[:, order] = x
    for rows in (x[:1], x, x.repeat(20, 1)):
        assert torch.equal(made(rows), expected[: len(rows)] if len(rows) < 3 else expected.repeat(20, 1))


def test_outputs_that_the_modules_do_not_divide_lose_the_surplus():
    made, wider = layer(8, 257, 4), layer(8, 260, 4)
    wider.load_state_dict({**made.state_dict(), "bias": torch.zeros(260)})
    for rows in (1, 300):
        x = torch.randn(rows, 8, dtype=torch.float64)
        torch.testing.assert_close(made(x) - made.bias, wider(x)[:, :257])


def test_weights_are_those_of_the_paper():
    made = MultiplicativeLinear(1024, 1024, 16)
    assert made.gates.numel() + made.projection.numel() == 81_920  # dense: 1,048,576
    loss = MultiplicativeLinear(1024, 32_000, 4, bias=False)
    assert sum(p.numel() for p in loss.parameters()) == 4 * 1024 + 1024 * 8000


def test_fresh_weights_are_the_authors():
    made = MultiplicativeLinear(400, 1600, 4)
    made.initialize_(torch.Generator().manual_seed(0))
    assert made.gates.std().item() == pytest.approx(0.5, rel=0.05)
    assert made.projection.abs().max().item() == pytest.approx((6 / (400 + 400)) ** 0.5, rel=0.01)
    assert 0 < made.bias.abs().max() < 1e-5


def test_arguments_make_an_equal_module():
    made = MultiplicativeLinear(8, 257, 4, bias=False)
    again = MultiplicativeLinear(**made.arguments())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
