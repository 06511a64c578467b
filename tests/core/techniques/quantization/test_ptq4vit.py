"""PTQ4ViT: twin ranges that share no value, a gradient that is not zero, and steps that it chooses."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from core.algorithms.gradient_weighted import SPLITS, Operand, choose_in_turn, factors, record
from core.artifacts import artifact
from core.nn.activation_quantizer import activation_grid
from core.nn.replacement import executed
from core.nn.uneven_quantizers import TwinQuantizer
from core.tasks.base import logits_of
from core.techniques.quantization.ptq4vit import Ptq4vit
from tests.core.techniques.pruning.families import loaded, subject_of
from tests.core.techniques.quantization.test_repq_vit import VISION, error, quantized

SMALL = {"candidates": 12, "rounds": 2, "calibration_examples": 16}


def peaked_rows():
    return (4 * torch.randn(64, 197, generator=torch.Generator().manual_seed(0))).softmax(-1)


def test_twin_ranges_beat_one_on_peaked_rows_but_not_when_their_branches_are_added():
    rows = peaked_rows()

    def mse(rounded):
        return (rounded - rows).square().mean().item()

    twins = [TwinQuantizer(8, of="softmax").set_steps(torch.tensor(split)) for split in SPLITS]
    split = min(twins, key=lambda twin: mse(twin(rows))).steps
    twin = mse(TwinQuantizer(8, of="softmax").set_steps(split)(rows))
    uniform = mse(activation_grid(rows.amin(), rows.amax(), 8, symmetric=False).nearest(rows))
    lower, upper = split / 127, 1 / 127
    below = torch.round(rows.clamp(0, split.item()) / lower).clamp(0, 127) * lower
    above = torch.round(rows.clamp(split.item(), 1) / upper).clamp(0, 127) * upper
    assert twin < uniform < mse(below + above)


def test_the_ranges_of_gelu_have_all_codes_and_the_minimum():
    x = torch.linspace(-6, 4, 4001)
    activations = F.gelu(x)
    twin = TwinQuantizer(4, of="gelu").set_steps(activations.amax() / 7)
    assert twin(activations).unique().numel() == 16
    negative = activations < 0
    assert (twin(activations) - activations)[negative].abs().max() <= 0.16997 / 16 + 1e-6
    assert twin(activations).min().item() == pytest.approx(-0.16997)


def test_the_choice_in_turn_is_that_of_a_slow_search():
    torch.manual_seed(0)
    x, weight, gradient = torch.randn(40, 6), torch.randn(3, 6), torch.randn(40, 3)
    tried = factors(9)

    def rounding(step):
        return lambda c: lambda values: torch.round(values / (c.reshape(-1, 1) * step)) * c.reshape(-1, 1) * step

    left = Operand(x, tried, rounding(0.5), torch.sum)
    right = Operand(weight, tried, rounding(0.7), lambda errors: errors.sum(0))
    output = x @ weight.t()
    of_left, of_right = choose_in_turn(left, right, F.linear, output, gradient, 1)

    def cost(a, b, row):
        rounded = left.rounded(torch.tensor(a)) @ right.rounded(torch.tensor(b)).t()
        errors = (gradient * (output - rounded)).square()
        return (errors if row is None else errors[:, row]).sum().item()

    assert of_left.item() == pytest.approx(min(tried, key=lambda c: cost(c, 1.0, None)))
    for row in range(3):
        assert of_right[row].item() == pytest.approx(min(tried, key=lambda c: cost(of_left.item(), c, row)))


@pytest.mark.parametrize("family", VISION)
def test_the_gradient_is_not_zero_and_leaves_none_on_the_weights(family):
    subject = subject_of(family, depth=2)
    names = [name for name, m in subject.model.named_modules() if isinstance(m, torch.nn.Linear)]
    seen = record(subject.model, names, [subject.task.batch(torch.arange(8))])
    for recording in seen.values():
        _, output, gradient = recording.joined()
        assert gradient.shape == output.shape and gradient.abs().max() > 1e-4
    assert all(parameter.grad is None for parameter in subject.model.parameters())


@pytest.mark.parametrize("family", VISION)
def test_every_product_is_quantized_and_the_artifact_reloads_equal(family, tmp_path):
    subject = subject_of(family, depth=2)
    assert error(Ptq4vit(**SMALL), subject) < 0.1
    changed = quantized(Ptq4vit(bits=6, activation_bits=6, **SMALL), subject)
    twins = [m.of for m in changed.model.modules() if isinstance(m, TwinQuantizer)]
    assert sorted(twins) == ["gelu", "gelu", "softmax", "softmax"]
    assert sum(type(m).__name__ == "ActivationQuantLinear" for m in executed(changed.model)) == 10
    artifact.save(changed, tmp_path, loaded(changed))
    stored = load_file(tmp_path / artifact.PROBE)["output"]
    with torch.inference_mode():
        again = logits_of(artifact.load_models(tmp_path)["main"], artifact.probe_batch(subject.task))
    assert torch.equal(again, stored)
