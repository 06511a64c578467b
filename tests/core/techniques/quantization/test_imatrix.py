"""Importance-weighted rounding on whole models, and as the range estimator of techniques that calibrate."""

import pytest
import torch
from pydantic import ValidationError

from core.nn.quant_linear import QuantLinear
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.quantization.imatrix import Imatrix
from core.techniques.quantization.rtn import Rtn
from tests.core.calibration.models import subject_of
from tests.core.fakes import context, plane_subject
from tests.core.techniques.quantization.test_gptq import apply, plane


def uneven(n: int = 512, d: int = 64) -> torch.Tensor:
    """Inputs whose channels differ in size."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator) * torch.linspace(-2, 2, d).exp()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "group"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_loses_less_than_rounding_to_nearest_weighed_by_the_mean_squares_of_inputs(symmetric, granularity, bits):
    x = uneven()
    weight = plane(x).model.up.weight.detach().clone()
    settings = {"bits": bits, "symmetric": symmetric, "granularity": granularity, "group_size": 16}

    def error(technique) -> torch.Tensor:
        change = apply(technique, plane(x)).model.up.weight() - weight
        return (change.square() * x.square().mean(0)).sum(1)

    found = error(Imatrix(calibration_examples=512, **settings))
    assert (found <= error(Rtn(**settings)) * (1 + 1e-5)).all()
    assert found.sum() < 0.97 * error(Rtn(observer="mse", **settings)).sum()


def test_without_pruning_or_correlation_sparsegpt_with_this_estimator_finds_the_same_grids():
    x = (torch.eye(64) * torch.linspace(1, 4, 64)).repeat(8, 1)
    found = apply(Sparsegpt(sparsity=0, bits=3, observer="imatrix", calibration_examples=512), plane(x)).model.up
    expected = apply(Imatrix(bits=3, calibration_examples=512), plane(x)).model.up
    assert float((found.weight() == expected.weight()).float().mean()) > 0.95  # sums differ in their last bits


@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "bert", "vit"])
def test_layers_of_every_family_are_packed_and_reported(name):
    subject = apply(Imatrix(granularity="group", group_size=8), subject_of(name))
    packed = [n for n, module in subject.model.named_modules() if isinstance(module, QuantLinear)]
    assert [row["name"] for row in subject.details["layers"]] == packed


@pytest.mark.parametrize("symmetric", [True, False])
def test_pruned_weights_stay_zero(symmetric):
    subject = plane_subject()
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[3] = False
    subject.constrain("up.weight", mask=mask)
    Imatrix(bits=3, symmetric=symmetric).apply(subject, context(subject))
    assert not subject.model.up.weight()[~mask].any()


def test_what_sees_no_data_does_not_offer_it():
    with pytest.raises(ValidationError, match="min-max"):
        Rtn(observer="imatrix")


def test_labels_tell_settings_apart():
    assert Imatrix().label() == "4-bit per channel"
    assert (
        Imatrix(bits=2, granularity="group", group_size=32, symmetric=False).label() == "2-bit per group of 32 affine"
    )
