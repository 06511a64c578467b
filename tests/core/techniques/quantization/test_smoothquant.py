"""SmoothQuant: the balance that it finds, and planted outliers that it takes out in every family."""

import copy

import pytest
import torch
from torch import nn

from core.algorithms.channel_scaling import fold_
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.foldable import folds
from core.nn.activation_quantizer import ActivationQuantizer
from core.techniques.quantization.activation_quantization import ActivationQuantization
from core.techniques.quantization.smoothquant import Smoothquant, smoothing_scales
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import subject_of
from tests.core.techniques.quantization.test_activation_quantization import applied, error

FAMILIES = ("llama", "qwen2", "opt", "gpt2", "vit", "builtin vit", "builtin gpt", "builtin encoder", "mixtral")


def planted(family, factor=50.0):
    """A subject whose norms make two channels of the activations `factor` times larger, the function being the same."""
    subject = subject_of(family, depth=2)
    for fold in folds(subject.model):
        if fold.is_norm:
            scales = torch.ones(fold.channels)
            scales[[3, 17]] = 1 / factor
            fold_(subject.model, fold, scales)
    return subject


def test_at_half_strength_the_maxima_of_inputs_and_weights_coincide():
    inputs, weights = torch.rand(32) * torch.logspace(-3, 3, 32), torch.rand(32)
    scales = smoothing_scales(inputs, weights, 0.5)
    assert torch.allclose(inputs / scales, weights * scales)
    assert torch.allclose(smoothing_scales(inputs, weights, 1.0), inputs.clamp_min(1e-5))
    assert torch.allclose(smoothing_scales(inputs, weights, 0.0), 1 / weights)


def test_a_channel_without_inputs_keeps_its_scale():
    assert smoothing_scales(torch.tensor([0.0, 2.0]), torch.tensor([3.0, 2.0]), 0.5).tolist() == [1, 1]


def test_an_80_fold_outlier_costs_a_third_once_it_is_smoothed():
    torch.manual_seed(0)
    x, weight = torch.randn(256, 128), torch.randn(64, 128) * 128**-0.5
    x[:, 5] *= 80
    exact = x.double() @ weight.double().t()
    step = ActivationQuantization()

    def relative_error(scales):
        linear = nn.Linear(128, 64, bias=False)
        linear.weight.data = weight * scales
        rounded = ActivationQuantizer(8)(x / scales).double() @ step.pack(linear).weight().double().t()
        return ((rounded - exact).norm() / exact.norm()).item()

    plain = relative_error(torch.ones(128))
    smooth = relative_error(smoothing_scales(x.abs().amax(0), weight.abs().amax(0), 0.5))
    assert 0.01 < plain < 0.05
    assert smooth < plain / 2.5


@pytest.mark.parametrize("scale", ["per-token", "per-tensor", "static"])
@pytest.mark.parametrize("family", FAMILIES)
def test_planted_outliers_are_smoothed_in_every_family(family, scale):
    subject = planted(family)
    settings = {"activation_scale": scale, "activation_observer": "min-max"}
    plain = error(applied(ActivationQuantization(**settings), subject), subject)
    smooth = error(applied(Smoothquant(**settings), subject), subject)
    assert smooth < 0.7 * plain


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt2", "bert"])
def test_all_places_smooth_more_layers(family):
    subject = subject_of(family, depth=2)

    def smoothed(step):
        return sum(row["smoothed by up to"] != 1 for row in applied(step, subject).details["layers"])

    everywhere = smoothed(Smoothquant(fold_into="all"))
    if family == "bert":
        assert everywhere == 2  # what reads the values
        return
    assert everywhere > smoothed(Smoothquant()) > 0
    exact = Smoothquant(fold_into="all", bits=8)
    assert error(applied(exact, subject), subject) < 0.05


def test_layers_that_nothing_can_be_folded_into_are_named():
    subject, record = subject_of("llama", depth=1), MemoryRecord()
    step = Smoothquant()
    changed = copy.deepcopy(subject)
    step.apply(changed, context(changed, record))
    text = " ".join(map(str, record.events))
    assert "2 of 7 layers are not smoothed" in text and "o_proj" in text and "down_proj" in text


@pytest.mark.parametrize("subject", [plane_subject(), subject_of("bert", depth=1)])
def test_a_model_without_such_norms_is_refused(subject):
    with pytest.raises(SpecError, match="no norm before linear layers"):
        Smoothquant().check(subject)
