"""AWQ's two searches: never worse than rounding as it is, and right where outliers are planted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.algorithms.awq import CLIPS, EXPONENTS, clipped, salience_scales, search_scales
from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.calibration.calls import Calls, unpadded
from core.models.foldable import Fold


class Half(nn.Module):
    """A norm and a layer that reads it."""

    def __init__(self):
        super().__init__()
        self.norm, self.up = nn.LayerNorm(32), nn.Linear(32, 24)
        self.outer = nn.Sequential(self.up, nn.GELU())

    def forward(self, x):
        return self.outer(self.norm(x))


FOLD = Fold("norm", ("up",), "outer", 32)


def recorded(model, x):
    calls = Calls(model.outer)
    handle = model.outer.register_forward_pre_hook(calls.recorder([None]), with_kwargs=True)
    for piece in x.split(4):
        model(piece)
    handle.remove()
    return calls


def searched(scheme, outlier):
    torch.manual_seed(0)
    model, x = Half(), torch.randn(8, 5, 32)
    with torch.no_grad():
        model.norm.weight[[2, 9]] *= outlier
    calls = recorded(model, x)
    means = model.norm(x).abs().mean((0, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = search_scales(model, FOLD, means, calls, scheme)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return model, x, found


@pytest.mark.parametrize("group_size", [None, 16, 10])
@pytest.mark.parametrize("symmetric", [True, False])
def test_exponent_zero_is_rounding_to_nearest_and_the_chosen_one_is_no_worse(group_size, symmetric):
    scheme = QuantizationScheme(3, symmetric, group_size)
    model, x, (exponent, scales, losses) = searched(scheme, 30.0)
    packed = scheme.pack(model.up, lambda fit, size: quantize_groups(model.up.weight.detach(), fit, size))
    hidden = model.norm(x)
    error = F.gelu(F.linear(hidden, packed.weight(), model.up.bias)) - model.outer(hidden)
    assert losses[0] == pytest.approx(error.square().mean().item(), rel=1e-3)
    assert losses[EXPONENTS.index(exponent)] == min(losses) <= losses[0]
    if not symmetric:  # whose largest weight, made salient, would be clipped by half a step
        assert min(losses) < 0.7 * losses[0] and exponent > 0
    assert torch.allclose(scales, salience_scales(hidden.abs().mean((0, 1)), exponent))
    assert (scales.max() * scales.min()).item() == pytest.approx(1, rel=1e-4)


def test_scales_by_hand():
    assert salience_scales(torch.tensor([4.0, 1.0]), 0.0).tolist() == [1, 1]
    assert salience_scales(torch.tensor([16.0, 1.0]), 0.5).tolist() == [2, 0.5]


@pytest.mark.parametrize("group_size", [None, 8, 12])
@pytest.mark.parametrize("symmetric", [True, False])
def test_clipping_finds_the_least_error_of_every_group(group_size, symmetric):
    torch.manual_seed(1)
    weight, x = torch.randn(6, 32), torch.randn(200, 32) @ torch.randn(32, 32)
    weight[0, 3] = 9.0
    scheme = QuantizationScheme(3, symmetric, group_size)
    found = clipped(weight, x.T @ x, scheme.fit, group_size)
    size, gained = group_size or 32, False
    for row in range(6):
        for start in range(0, 32, size):
            group, own = weight[row : row + 1, start : start + size], x[:, start : start + size].double()

            def loss(candidate, group=group, own=own):
                error = (scheme.fit(candidate).nearest(candidate) - group).double()
                return (own @ error[0]).square().sum().item()

            low, high = min(group.min().item(), 0), max(group.max().item(), 0)
            losses = [loss(group.clamp(factor * low, factor * high)) for factor in CLIPS]
            own_loss = loss(found[row : row + 1, start : start + size])
            assert own_loss == pytest.approx(min(losses), rel=1e-3)
            gained |= own_loss < 0.9 * losses[0]
    assert gained


def test_padding_does_not_count_in_a_modules_outputs():
    model, x = Half(), torch.randn(2, 3, 32)
    calls = Calls(model.outer)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    handle = model.outer.register_forward_pre_hook(calls.recorder([mask]), with_kwargs=True)
    y = model(x)
    handle.remove()
    (output,) = calls.outputs()
    assert torch.equal(output, y[mask.bool()])
    assert unpadded(x.view(1, 6, 32), mask).shape == (1, 3, 32)
