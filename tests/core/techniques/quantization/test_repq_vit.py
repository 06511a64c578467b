"""RepQ-ViT: codes and function across the fold, powers of the root of two, and what channels' scales gain."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core.algorithms.layer_norm_scales import reparameterize_
from core.artifacts import artifact
from core.errors import SpecError
from core.nn.activation_quantizer import activation_grid
from core.nn.integer_linear import IntegerLinear
from core.nn.replacement import executed
from core.nn.uneven_quantizers import LogQuantizer
from core.tasks.base import logits_of
from core.techniques.quantization.repq_vit import RepqVit
from tests.core.fakes import context
from tests.core.techniques.pruning.families import loaded, subject_of

VISION = ("builtin vit", "vit", "deit")


def quantized(step, subject):
    changed = copy.deepcopy(subject)
    step.check(changed)
    step.apply(changed, context(changed))
    return changed


def error(step, subject):
    """Relative, of the logits."""
    batch = subject.task.batch(torch.arange(16))
    with torch.no_grad():
        exact, rounded = logits_of(subject.model, batch), logits_of(quantized(step, subject).model, batch)
    return ((rounded - exact).norm() / exact.norm()).item()


def test_codes_and_function_stay_when_the_scales_of_channels_are_folded():
    torch.manual_seed(0)
    norm, layer = nn.LayerNorm(16).double(), nn.Linear(16, 8).double()
    norm.weight.data, norm.bias.data = torch.randn(16).double().exp(), torch.randn(16).double()
    x = torch.randn(300, 16).double()
    before = norm(x)
    outputs = layer(before)
    channels = activation_grid(before.amin(0), before.amax(0), 4, symmetric=False)
    codes = channels.quantize(before)
    one = reparameterize_(norm, [layer], channels)
    after = norm(x)
    assert one.static_scale.shape == one.static_zero_point.shape == (1,)
    assert torch.equal(one.grid(after).quantize(after), codes)
    assert torch.allclose(layer(after), outputs, rtol=1e-9, atol=1e-9)
    assert codes.unique().numel() == 16


def test_levels_are_powers_of_the_root_of_two():
    quantizer = LogQuantizer(4, per_octave=2).set_steps(torch.tensor(0.8))
    levels = 0.8 * 2 ** (-torch.arange(16) / 2)
    assert torch.allclose(quantizer(levels), levels, rtol=1e-6)
    assert quantizer(torch.tensor([0.0, 1e-6, 0.9])).tolist() == pytest.approx([0, 0, 0.8])
    small = torch.logspace(-7, 0, 200, base=2) * 0.8
    assert ((quantizer(small) - small).abs() / small).max() <= 2**0.25 - 1 + 1e-5


@pytest.mark.parametrize("family", VISION)
def test_every_product_is_quantized_and_eight_bits_cost_little(family, tmp_path):
    subject = subject_of(family, depth=2)
    step = RepqVit(calibration_examples=16)
    assert error(step, subject) < 0.1
    changed = quantized(step, subject)
    names = {type(module).__name__ for module in executed(changed.model)}
    assert "ActivationQuantLinear" in names and any("Products" in name for name in names)
    assert sum(isinstance(m, IntegerLinear) for m in changed.model.modules()) == 12
    artifact.save(changed, tmp_path, loaded(changed))
    stored = load_file(tmp_path / artifact.PROBE)["output"]
    with torch.inference_mode():
        again = logits_of(artifact.load_models(tmp_path)["main"], artifact.probe_batch(subject.task))
    assert torch.equal(again, stored)


@pytest.mark.parametrize("family", VISION)
def test_scales_of_channels_help_where_gains_differ(family):
    subject = subject_of(family, depth=2)
    generator = torch.Generator().manual_seed(1)
    for name, module in subject.model.named_modules():
        if isinstance(module, nn.LayerNorm) and ("blocks" in name or "layer" in name):
            gains = torch.randn(module.weight.shape, generator=generator).mul(1.5).exp()
            module.weight.data = module.weight.data * gains
    settings = {"bits": 8, "activation_bits": 4, "calibration_examples": 16}
    assert error(RepqVit(**settings), subject) < error(RepqVit(**settings, reparameterize=False), subject)


@pytest.mark.parametrize("family", ["llama", "bert", "builtin gpt", "builtin encoder"])
def test_what_is_no_vision_transformer_is_refused(family):
    with pytest.raises(SpecError, match="not a Vision Transformer"):
        RepqVit().check(subject_of(family, depth=1))
