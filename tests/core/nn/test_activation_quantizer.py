"""Rounding activations: the identities of a grid, where its scale comes from, and its gradient."""

import copy

import pytest
import torch

from core.nn.activation_quantizer import ActivationQuantizer, activation_grid

SCALES = ("static", "per-tensor", "per-token")


def quantizer(bits, symmetric, scale, x):
    made = ActivationQuantizer(bits, symmetric=symmetric, scale=scale)
    return made.set_range(x.min(), x.max()) if scale == "static" else made


def sample(rows=5, d=33):
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, rows)[:, None] + 0.3


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_grid_has_zero_errs_by_half_a_step_and_rounds_what_is_on_it_to_itself(bits, symmetric, scale):
    x = sample()
    x[:, 0] = 0
    made = quantizer(bits, symmetric, scale, x)
    rounded, step = made(x), made.grid(x).scale
    assert (rounded[:, 0] == 0).all()
    edge = 1 if symmetric else 2  # rounding the zero point shifts an affine grid by up to half a step
    assert ((rounded - x).abs() <= edge * step / 2 * (1 + 1e-5)).all()
    assert ((rounded - x).abs() <= step / 2 * (1 + 1e-5)).float().mean() > 0.95
    assert torch.allclose(made(rounded), rounded, rtol=1e-6)
    assert all(len(row.unique()) <= 2**bits for row in rounded)


def test_codes_by_hand():
    symmetric = activation_grid(torch.tensor(-1.4), torch.tensor(0.7), 4, True)
    assert symmetric.scale.item() == pytest.approx(0.2)
    assert symmetric.quantize(torch.tensor([-1.4, -0.5, 0.0, 0.7, 9.0])).tolist() == [-7, -2, 0, 4, 7]
    affine = activation_grid(torch.tensor(-0.5), torch.tensor(2.5), 4, False)
    assert affine.scale.item() == pytest.approx(0.2)
    assert affine.zero_point.item() == -6  # -0.5 is 2.5 steps below zero, rounded to the even 2: 2 - 8
    assert affine.quantize(torch.tensor([-0.5, 0.0, 2.5, 9.0])).tolist() == [-8, -6, 6, 7]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-38])
def test_constant_inputs_stay_finite_and_close(value, symmetric, scale):
    x = torch.full((3, 4), value)
    rounded = quantizer(8, symmetric, scale, x)(x)
    assert torch.allclose(rounded, x, rtol=0.01, atol=1e-30)


def test_a_token_has_its_own_scale_and_a_tensor_one():
    x = sample()
    louder = x.clone()
    louder[-1] *= 1000
    by_token, by_tensor = (ActivationQuantizer(8, scale=scale) for scale in ("per-token", "per-tensor"))
    assert torch.equal(by_token(louder)[:-1], by_token(x)[:-1])
    assert not by_tensor(louder)[0].any()


def test_a_static_scale_clips_what_lies_beyond_its_range():
    made = ActivationQuantizer(8, scale="static").set_range(torch.tensor(-1.27), torch.tensor(1.0))
    assert torch.allclose(made(torch.tensor([[5.0, -5.0, 0.634]])), torch.tensor([[1.27, -1.27, 0.63]]))


def test_the_gradient_passes_inside_the_range_and_not_outside():
    x = torch.tensor([[0.3, -1.0, 1.0, 1.2, -7.0]], requires_grad=True)
    made = ActivationQuantizer(4, scale="static").set_range(torch.tensor(-1.0), torch.tensor(1.0))
    y = made(x)
    assert torch.equal(y.detach(), made(x.detach()))
    y.sum().backward()
    assert x.grad.tolist() == [[1, 1, 1, 0, 0]]
    by_token = torch.randn(3, 8, requires_grad=True)
    ActivationQuantizer(4)(by_token).sum().backward()
    assert torch.equal(by_token.grad, torch.ones(3, 8))


def test_casts_leave_a_static_scale_as_it_is():
    made = ActivationQuantizer(8, symmetric=False, scale="static").set_range(torch.tensor(-1.0), torch.tensor(2.0))
    before = copy.deepcopy(made.state_dict())
    made.to(torch.bfloat16)
    assert all(torch.equal(made.state_dict()[key], value) for key, value in before.items())
    again = ActivationQuantizer(**made.arguments())
    again.load_state_dict(before)
    x = sample().bfloat16()
    assert torch.equal(again(x), made(x)) and again(x).dtype == torch.bfloat16
