"""BiT: signs, elastic activations, and a first part that teaches the second."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.binary_linear import BinaryLinear
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.binary import Binary
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import context, taken_up
from tests.core.techniques.quantization.qat import (
    FAMILIES,
    before_and_after_the_end,
    family_subject,
    float_layers,
    loss_of,
)
from tests.core.training.test_loop import plan, same, weights


def binary_layers(model: nn.Module) -> dict[str, BinaryLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BinaryLinear)}


@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_the_packed_model_is_the_one_that_was_trained(family):
    subject = family_subject(family)
    before, after = before_and_after_the_end(subject, [Binary(teacher="stage:0")])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    layers = binary_layers(subject.model)
    assert layers
    for layer in layers.values():
        low, high = layer.weight().unique().tolist()
        assert high == -low == float(layer.scales)
        assert layer.codes.shape[1] == -(-layer.in_features // 8) and layer.activation_bits == 1


@pytest.mark.parametrize(("bits", "signed"), [(1, False), (1, True), (2, True)])
def test_a_layer_by_hand(bits, signed):
    torch.manual_seed(0)
    linear, x = nn.Linear(11, 3), torch.randn(7, 11)
    signs = torch.where(torch.rand(3, 11) > 0.5, 1.0, -1.0)
    scale, step, shift = torch.tensor([0.3]), torch.tensor([0.6]), torch.tensor([0.1])
    layer = BinaryLinear.of_signs(linear, signs, scale, step, shift, activation_bits=bits, signed=signed)
    u = (x - 0.1) / 0.6
    if bits == 1:
        codes = torch.where(u >= 0, 1.0, -1.0) if signed else (u > 0.5).float()
    else:
        codes = u.round().clamp(-2, 1)
    expected = F.linear(0.6 * codes, 0.3 * signs, linear.bias)
    torch.testing.assert_close(layer(x), expected)
    again = BinaryLinear(**layer.arguments())
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))
    layer(x.requires_grad_()).sum().backward()
    low, high = (-1, 1) if bits == 1 and signed else (0, 1) if bits == 1 else (-2, 1)
    outside = (u < low) | (u > high)
    assert not x.grad[outside].any() and x.grad[~outside].all()


def test_what_a_relu_gives_has_the_codes_0_and_1():
    subject = float_layers()
    method = Binary(first_activation_bits=None)
    Training(subject, context(subject), plan(steps=3), [method]).run()
    layers = binary_layers(subject.model)
    assert [layers[name].signed for name in ("up", "middle")] == [True, False]


def test_the_first_part_teaches_the_second():
    subject, record = float_layers(), MemoryRecord()
    method = Binary(switch=0.5, blocks_weight=0)
    training = Training(subject, context(subject, record), plan(steps=10), [method])
    for _ in range(5):
        assert {own.bits for own in method._inputs.values()} == {2} and method._taught is None
        training._update()
        training.index += 1
    assert {own.bits for own in method._inputs.values()} == {1}
    teacher = copy.deepcopy(method._taught.teacher)
    assert {teacher.get_submodule(name).input_quantizer.bits for name in method._inputs} == {2}
    training._make_updates()
    assert same(weights_of(teacher), weights_of(method._taught.teacher))  # it does not learn
    assert [update for update, _ in record.curves["0/distillation"]] == list(range(5, 10))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_a_teacher_is_imitated_block_by_block():
    subject, record = family_subject("bert"), MemoryRecord()
    method = {"binary": {"teacher": "stage:0"}}
    Train(steps=4, batch_size=8, evaluations=0, methods=[method]).apply(subject, context(subject, record))
    assert all(value > 0 for _, value in record.curves["0/blocks"]) and len(record.curves["0/blocks"]) == 4
    assert all(value == 0 for _, value in record.curves["0/loss"])  # alpha is 1: labels do not count


def test_the_blocks_term_leaves_padding_out():
    subject = family_subject("bert")
    method = Binary(teacher="stage:0", first_activation_bits=None)
    method.begin(subject, context(subject))
    taught = method._taught
    own = {name: torch.zeros(2, 3, 4) for name in taught.blocks}
    goal = {name: torch.zeros(2, 3, 4) for name in taught.blocks}
    for tensor in goal.values():
        tensor[0, 2] = 100.0  # padding
        tensor[1, 0] = 2.0
    batch = {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    assert float(taught.blocks_term(batch, own, goal)) == pytest.approx(4 / 5)


@pytest.mark.parametrize("at", [6, 14])
def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path, at):
    train = Train(steps=20, learning_rate=0.02, evaluations=0, methods=["binary"])
    (whole, record), (resumed, again) = taken_up(train, float_layers, tmp_path, at=at)
    assert same(weights(whole), weights(resumed))
    later = [point for point in record.curves["0/distillation"] if point[0] >= at]
    assert [p for p in again.curves["0/distillation"] if p[0] >= at] == later


def test_a_pruned_model_is_refused():
    subject = float_layers()
    MagnitudePruning(sparsity=0.5).apply(subject, context(subject))
    with pytest.raises(SpecError, match="is pruned"):
        Binary().check(subject)


def test_training_is_better_than_rounding_to_signs():
    for seed in range(3):
        losses = {}
        for rate in (1e-9, 0.01):  # at the first rate nothing but rounding happens
            subject = float_layers(seed)
            Train(steps=150, learning_rate=0.01, evaluations=0).apply(subject, context(subject))
            dense = copy.deepcopy(subject.model)
            method = {"binary": {"teacher": "stage:0", "first_activation_bits": None}}
            Train(steps=150, learning_rate=rate, evaluations=0, methods=[method]).apply(
                subject, context(subject, resolve=lambda reference, dense=dense: dense)
            )
            losses[rate] = loss_of(subject)
        assert losses[0.01] < 0.5 * losses[1e-9]


def test_label():
    assert [Binary().label(), Binary(first_activation_bits=None).label()] == ["W1A2 → W1A1", "W1A1"]
