"""FQ-ViT: errors of the integer functions, powers of two for probabilities and channels, and whole models."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from core.artifacts import artifact
from core.nn import integer_functions
from core.nn.rounded_norm import RoundedNorm
from core.nn.uneven_quantizers import LogQuantizer, PowerOfTwoQuantizer
from core.tasks.base import logits_of
from core.techniques.quantization.fq_vit import FqVit
from tests.core.techniques.pruning.families import loaded, subject_of
from tests.core.techniques.quantization.test_repq_vit import VISION, error, quantized


def test_the_integer_functions_have_the_errors_of_their_papers():
    x = torch.linspace(-20, 0, 200_001, dtype=torch.float64)
    assert 2.0e-3 < (integer_functions.exp(x) - x.exp()).abs().max() < 2.15e-3
    x = torch.linspace(-6, 6, 120_001, dtype=torch.float64)
    assert 0.0180 < (integer_functions.gelu(x) - F.gelu(x)).abs().max() < 0.0183
    rows = 3 * torch.randn(50, 40)
    assert torch.allclose(integer_functions.softmax(rows).sum(-1), torch.ones(50))
    assert (integer_functions.softmax(rows) - rows.softmax(-1)).abs().max() < 5e-3


def test_small_probabilities_keep_their_relative_size_and_the_smallest_are_zero():
    quantizer = LogQuantizer(4)
    x = torch.logspace(-15, 0, 500, base=2)
    assert ((quantizer(x) - x).abs() / x).max() <= math.sqrt(2) - 1 + 1e-5
    uniform = torch.round(x * 15) / 15
    small = x < 1 / 30
    assert ((uniform - x).abs() / x)[small].min() > 0.99
    assert quantizer(torch.tensor([0.0, 2**-15.6, 2**-15.4, 1.0])).tolist() == [0, 0, 2**-15, 1]


def test_channels_have_the_powers_of_two_that_were_planted():
    planted = torch.tensor([0, 1, 2, 3]).repeat(4)
    x = (torch.rand(4000, 16) * 2 - 1) * torch.exp2(planted.float())
    quantizer = PowerOfTwoQuantizer(8, channels=16).fit(x, x.amin(), x.amax())
    assert torch.equal(quantizer.exponents.long(), planted)
    errors = (quantizer(x) - x).square().mean(0)
    alike = PowerOfTwoQuantizer(8, channels=16).fit(x, x.amin(), x.amax())
    alike.exponents.fill_(3)
    assert (errors[planted == 0] < 0.05 * (alike(x) - x).square().mean(0)[planted == 0]).all()
    assert not quantizer(torch.zeros(1, 16)).any()


@pytest.mark.parametrize("family", VISION)
def test_all_of_a_block_is_quantized_and_the_artifact_reloads_equal(family, tmp_path):
    subject = subject_of(family, depth=2)
    coarse = FqVit(bits=4, activation_bits=4, calibration_examples=16)
    step = FqVit(calibration_examples=16)
    assert error(step, subject) < min(0.3, 0.5 * error(coarse, subject))
    changed = quantized(step, subject)
    modules = list(changed.model.modules())
    assert sum(isinstance(m, RoundedNorm) for m in modules) == 5
    assert sum(isinstance(m, integer_functions.IntegerGelu) for m in modules) == 2
    assert sum(isinstance(m, LogQuantizer) for m in modules) == 2
    artifact.save(changed, tmp_path, loaded(changed))
    stored = load_file(tmp_path / artifact.PROBE)["output"]
    with torch.inference_mode():
        again = logits_of(artifact.load_models(tmp_path)["main"], artifact.probe_batch(subject.task))
    assert torch.equal(again, stored)
