"""Importances: by hand, by finite differences, and example by example where the formula says so."""

import pytest
import torch
from torch.nn import functional as F

from core.algorithms.structured.gates import gate_gradients, gated
from core.algorithms.structured.gradients import gradient_moments, mean_gradients
from core.algorithms.structured.importance import first_order, importance_of, mixed, summed, unit_sums
from core.algorithms.structured.units import Slice, Units, channel_units, ffn_units, head_units
from core.models.anatomy import anatomy
from core.tasks.base import inputs, logits_of
from tests.core.algorithms.structured.families import FAMILIES, subject_of
from tests.core.fakes import context

W = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
G = torch.tensor([[0.5, 1.0], [-1.0, 2.0]])


def test_element_importances_by_hand():
    assert first_order(W, G).tolist() == [[0.5, 2.0], [3.0, 1.0]]
    # g w - w^2 s / 2: 0.5 - 1, -2 - 4 * 0.25 / 2, -3 - 0, 1 - 0.25 * 4 / 2
    square = torch.tensor([[2.0, 0.25], [0.0, 4.0]])
    assert mixed(W, G, square).tolist() == [[0.5, 2.5], [3.0, 0.5]]


def test_a_unit_sums_its_elements_along_its_axis():
    elements = torch.arange(12.0).view(2, 6)
    assert unit_sums(elements, Slice("w", 1, 3)).tolist() == [0 + 1 + 2 + 6 + 7 + 8, 3 + 4 + 5 + 9 + 10 + 11]
    assert unit_sums(elements, Slice("w", 0)).tolist() == [15, 51]
    assert unit_sums(torch.tensor([1.0, 2.0, 3.0, 4.0]), Slice("b", 0, 2)).tolist() == [3, 7]
    units = Units("layer", "heads", 2, "o", (Slice("q", 0), Slice("o", 1, 3), Slice("running", 0)))
    assert summed(units, {"q": elements, "o": elements}).tolist() == [15 + 24, 51 + 42]


def all_units(subject):
    model = subject.model
    channels = channel_units(model)
    if channels:
        return channels
    known = anatomy(model)
    return [f(b) for b in known.blocks for f in (lambda b: head_units(model, known, b), lambda b: ffn_units(model, b))]


def loss_of(subject, index):
    batch = subject.task.batch(torch.tensor([index]))
    return subject.task.loss(logits_of(subject.model, batch), batch)


def exact_loss_of(subject, index):
    """The same in double precision."""
    batch = subject.task.batch(torch.tensor([index]))
    given = {k: v.double() if v.is_floating_point() else v for k, v in inputs(batch).items()}
    output = subject.model(**given)
    logits = output if isinstance(output, torch.Tensor) else output.logits
    return float(F.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten()))


@pytest.mark.parametrize("family", FAMILIES)
def test_gate_gradients_are_the_slope_of_each_examples_own_loss(family):
    subject = subject_of(family)
    subject.model.double()
    units = all_units(subject)
    batches = [subject.task.batch(torch.arange(0, 5)), subject.task.batch(torch.arange(5, 8))]
    found = gate_gradients(subject.model, subject.task, batches, units)
    step, tolerance = (2e-3, 5e-3) if family == "hf llama" else (1e-6, 1e-4)  # its norms compute in float32
    for group in (units[0], units[-1]):
        assert found[group.gate].shape == (8, group.count)
        for example, unit in ((2, 0), (6, group.count - 1)):
            values = []
            for factor in (1 - step, 1 + step):
                gate = torch.ones(group.count).double().index_fill(0, torch.tensor([unit]), factor)
                with gated(subject.model, [group], lambda _, gate=gate: gate), torch.no_grad():
                    values.append(exact_loss_of(subject, example))
            slope = (values[1] - values[0]) / (2 * step)
            assert float(found[group.gate][example, unit]) == pytest.approx(slope, rel=tolerance, abs=1e-6)


def test_moments_are_those_of_single_examples():
    subject = subject_of("vit")
    name = "blocks.0.ffn.up.weight"
    parameter = subject.model.get_parameter(name)
    batches = [subject.task.batch(torch.arange(0, 5)), subject.task.batch(torch.arange(5, 8))]
    single = torch.stack([torch.autograd.grad(loss_of(subject, i), parameter)[0] for i in range(8)])
    first, second = gradient_moments(subject.model, subject.task, batches, {name: parameter})
    torch.testing.assert_close(first[name], single.mean(0), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(second[name], single.square().mean(0), atol=1e-6, rtol=1e-4)
    mean = mean_gradients(subject.model, subject.task, batches, {name: parameter})
    torch.testing.assert_close(mean[name], single.mean(0), atol=1e-6, rtol=1e-4)


def test_every_importance_of_a_model_is_its_formula():
    subject = subject_of("vit")
    known = anatomy(subject.model)
    group = ffn_units(subject.model, known.blocks[1])
    ffn = subject.model.blocks[1].ffn
    where = context(subject)
    batch = next(iter(where.calibration(12)))
    loss = F.cross_entropy(subject.model(batch["pixel_values"]), batch["labels"])
    up, bias, down = torch.autograd.grad(loss, [ffn.up.weight, ffn.up.bias, ffn.down.weight])
    expected = (up * ffn.up.weight).abs().sum(1) + (bias * ffn.up.bias).abs() + (down * ffn.down.weight).abs().sum(0)
    found = importance_of(subject, where, [group], "first_order", 12)[group.gate]
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=1e-4)
    squares = ffn.up.weight.square().sum(1) + ffn.up.bias.square() + ffn.down.weight.square().sum(0)
    torch.testing.assert_close(importance_of(subject, where, [group], "l2", 1)[group.gate], squares.detach().sqrt())
    gates = gate_gradients(subject.model, subject.task, [batch], [group])[group.gate]
    taylor = importance_of(subject, where, [group], "taylor", 12)[group.gate]
    torch.testing.assert_close(taylor, gates.square().mean(0))
    assert not torch.allclose(taylor, gates.mean(0).square(), rtol=0.1)  # examples would cancel


def test_chance_is_the_same_for_the_same_step():
    subject = subject_of("vit")
    units = all_units(subject)
    first, second = (importance_of(subject, context(subject), units, "random", 1) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
