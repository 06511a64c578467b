"""The product of rows with the matrix of their own expert, against selecting and multiplying them one by one."""

import pytest
import torch

from core.nn.experts.segments import Segments, segmented_linear

COUNTS = torch.tensor([3, 0, 4, 1, 0])


def parts(bias=True):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    return draw(8, 7), draw(5, 9, 7), draw(5, 9) if bias else None


def slowly(x, weight, bias):
    expert = torch.arange(5).repeat_interleave(COUNTS)
    rows = [weight[e] @ row + (0 if bias is None else bias[e]) for e, row in zip(expert, x, strict=True)]
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradients_are_those_of_single_rows(bias):
    inputs = [part for part in parts(bias) if part is not None]
    x, weight, offset = (*inputs, None)[:3]
    weights = torch.randn(8, 9, dtype=torch.float64)
    made, expected = segmented_linear(x, weight, offset, Segments(COUNTS)), slowly(x, weight, offset)
    torch.testing.assert_close(made, expected)
    gradients = torch.autograd.grad((made * weights).sum(), inputs)
    for gradient, wanted in zip(gradients, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_gradients_of_experts_without_rows_are_zero():
    x, weight, bias = parts()
    of_weight, of_bias = torch.autograd.grad(segmented_linear(x, weight, bias, Segments(COUNTS)).sum(), (weight, bias))
    assert not of_weight[[1, 4]].any() and not of_bias[[1, 4]].any()


def test_what_wants_no_gradient_gets_none():
    x, weight, bias = parts()
    segmented_linear(x.detach(), weight.detach(), bias, Segments(COUNTS)).sum().backward()
    assert x.grad is None and weight.grad is None
    torch.testing.assert_close(bias.grad, COUNTS[:, None].double().expand(5, 9))


def test_no_rows_at_all():
    _, weight, bias = parts()
    x = torch.zeros(0, 7, dtype=torch.float64, requires_grad=True)
    made = segmented_linear(x, weight, bias, Segments(torch.zeros(5, dtype=torch.int64)))
    made.sum().backward()
    assert made.shape == (0, 9) and not weight.grad.any()


def test_autocast_multiplies_in_its_own_precision():
    x, weight, bias = (part.detach().float() for part in parts())
    with torch.autocast("cpu", torch.bfloat16):
        made = segmented_linear(x, weight, bias, Segments(COUNTS))
    assert made.dtype == torch.bfloat16
    expected = slowly(x, weight, bias)
    torch.testing.assert_close(made.float(), expected, atol=0.1, rtol=0.02)
