"""Palettization on whole models."""

import pytest
import torch
from torch import nn

from core.calibration.inputs import input_rows
from core.models.anatomy import prunable
from core.nn.experts.packed import PackedExpertLinear
from core.nn.palette_linear import PaletteLinear
from core.tasks.base import logits_of
from core.techniques.quantization.palettize import Palettize
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import subject_of


def applied(subject, **settings):
    step = Palettize(**settings)
    step.check(subject)
    step.apply(subject, context(subject))
    return subject


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", ["builtin gpt", "llama", "bert", "vit"])
def test_every_layer_of_the_blocks_gets_a_palette(family, weighted):
    subject = subject_of(family, depth=2)
    names = prunable(subject.model)
    applied(subject, weighted=weighted)
    found = [name for name, m in subject.model.named_modules() if isinstance(m, PaletteLinear)]
    assert found == names == [row["name"] for row in subject.details["layers"]]
    assert all(0 < row["relative_error"] < 0.2 for row in subject.details["layers"])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("granularity", ["tensor", "rows"])
def test_the_error_is_at_most_that_of_a_uniform_grid(bits, granularity):
    linear = nn.Linear(96, 32)
    linear.weight.data = torch.randn(32, 96, generator=torch.Generator().manual_seed(0)) ** 3
    packed = Palettize(bits=bits, granularity=granularity, rows=1).palettize(linear)
    if granularity == "rows":
        grid = Rtn(bits=bits, symmetric=False).quantize(linear).weight()
    else:
        grid = Rtn(bits=bits, symmetric=False).quantize(nn_flat(linear)).weight().view(32, 96)
    errors = [(w - linear.weight).square().sum().item() for w in (packed.weight(), grid)]
    assert errors[0] < 0.9 * errors[1]


def nn_flat(linear: nn.Linear) -> nn.Linear:
    flat = nn.Linear(linear.weight.numel(), 1, bias=False)
    flat.weight.data = linear.weight.detach().view(1, -1)
    return flat


def test_weighting_by_inputs_lowers_the_weighted_error():
    subject = plane_subject()
    weight = subject.model.up.weight.detach().clone()
    subject.task.points[:, 3] *= 30  # one input matters most
    m = subject.task.points.square().mean(0)
    errors = []
    for weighted in (False, True):
        model = applied(plane_subject_like(subject), bits=2, weighted=weighted).model
        errors.append(float((m * (model.up.weight() - weight).square()).sum()))
    assert errors[1] < 0.5 * errors[0]


def plane_subject_like(subject):
    made = plane_subject()
    made.task = subject.task
    return made


def test_importances_are_mean_squares_of_the_inputs_after_earlier_blocks_have_changed():
    subject = subject_of("builtin gpt", depth=2)
    layer = "blocks.1.ffn.down"
    linear = subject.model.get_submodule(layer)
    step = Palettize(bits=2, weighted=True, calibration_examples=24)
    applied(subject, bits=2, weighted=True, calibration_examples=24, skip=["blocks.1.*"])
    caught = []
    handle = linear.register_forward_pre_hook(lambda m, args: caught.append(input_rows(m, args[0])[0]))
    with torch.no_grad():
        logits_of(subject.model, subject.task.batch(torch.arange(24)))
    handle.remove()
    expected = step.palettize(linear, caught[0].square().mean(0))
    found = applied(subject_of("builtin gpt", depth=2), bits=2, weighted=True, calibration_examples=24)
    assert torch.allclose(found.model.get_submodule(layer).palettes, expected.palettes, atol=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_experts_have_palettes_of_their_own(weighted):
    subject = applied(subject_of("mixtral", depth=2), weighted=weighted)
    experts = [m for m in subject.model.modules() if isinstance(m, PackedExpertLinear)]
    assert experts
    assert all(isinstance(own, PaletteLinear) for layer in experts for own in layer.layers)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pruned_weights_stay_zero(bits):
    subject = plane_subject()
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    subject.constrain("up.weight", mask=mask)
    applied(subject, bits=bits, granularity="rows", rows=4)
    assert not subject.model.up.weight()[~mask].any()
    assert subject.constraints == {}


def test_16_bit_models_keep_their_dtype():
    subject = applied(subject_of("llama", depth=2, dtype=torch.bfloat16), bits=3)
    layer = next(m for m in subject.model.modules() if isinstance(m, PaletteLinear))
    assert layer.palettes.dtype == layer.dtype == subject.dtype == torch.bfloat16


def test_palettes_beyond_float16_are_float32():
    linear = nn.Linear(8, 4)
    assert Palettize().palettize(linear).palettes.dtype == torch.float16
    linear.weight.data.mul_(1e-6)
    packed = Palettize().palettize(linear)
    assert packed.palettes.dtype == torch.float32
    assert (packed.weight() - linear.weight).norm() < 0.1 * linear.weight.norm()
    linear.weight.data.mul_(1e12)
    assert Palettize().palettize(linear).palettes.dtype == torch.float32


def test_labels_tell_settings_apart():
    assert Palettize().label() == "4-bit per layer"
    assert Palettize(bits=2, granularity="rows", weighted=True).label() == "2-bit per 16 rows weighted"
