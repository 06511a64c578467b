"""What is reconstructed: calls of the quantized prefix, targets of the unchanged model, weights of the errors."""

import copy

import pytest
import torch
from torch import Tensor, nn

from core.algorithms.reconstruction.units import block_unit, layer_units
from core.calibration import CalibrationBlock
from core.tasks.base import logits_of
from tests.core.calibration.models import subject_of
from tests.core.calibration.test_sequential import damage, entering_and_leaving, layers_of
from tests.core.fakes import context


def blocks_of(subject):
    return context(subject).blocks(subject, 6, layers_of(subject.model), targets=True, batch_size=2)


def names_in(block: CalibrationBlock) -> list[str]:
    return [name for group in block.groups for name in group]


def weights_of(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    return {name: model.get_parameter(f"{name}.weight").detach().float() for name in names}


@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "vit", "bert"])
def test_a_block_with_its_own_weights_errs_by_what_its_inputs_have_changed(name):
    subject = subject_of(name)
    untouched = copy.deepcopy(subject.model)
    for position, block in enumerate(b for b in blocks_of(subject) if b.is_block):
        unit = block_unit(block)
        names = names_in(block)
        error, count = unit.error(0, weights_of(subject.model, names))
        _, now = entering_and_leaving(subject.model, block.batches[0], block.name)
        _, before = entering_and_leaving(untouched, block.batches[0], block.name)
        mask = block.batches[0].get("attention_mask")
        squares = (now - before).square()
        if mask is not None:
            squares = squares[mask.bool()]
        assert float(error) == pytest.approx(float(squares.sum()), rel=1e-3, abs=1e-6)
        assert int(count) == (squares.numel() if mask is None else len(squares)) or int(count) == squares.numel()
        assert (float(error) > 1e-3) == (position > 0)
        damage(subject.model, names)


def test_fisher_weights_are_squared_gradients_with_a_mean_of_1():
    subject = subject_of("vit")

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return logits.square().mean()

    block = next(b for b in blocks_of(subject) if b.is_block)
    unit, outputs = block_unit(block, loss), []
    handle = subject.model.get_submodule(block.name).register_forward_hook(
        lambda module, args, output: outputs.append(output[0] if isinstance(output, tuple) else output)
    )
    gradients = [
        torch.autograd.grad(loss(logits_of(subject.model, batch), batch), outputs[-1])[0] for batch in block.batches
    ]
    handle.remove()
    squares = torch.cat(gradients).square() / torch.cat(gradients).square().mean()
    found = torch.cat([unit.importance(i, block.targets[i]) for i in range(3)])
    assert torch.allclose(found, squares, rtol=1e-3, atol=1e-5)
    changed = {name: 1.1 * weight for name, weight in weights_of(subject.model, names_in(block)).items()}
    error, _ = unit.error(1, changed)
    difference = unit.output(1, changed) - block.targets[1]
    assert float(error) == pytest.approx(float((squares[2:4] * difference.square()).sum()), rel=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_layers_are_learned_one_by_one_on_changed_inputs_for_unchanged_outputs(name):
    subject = subject_of(name)
    untouched = copy.deepcopy(subject.model)
    visited, matters = [], False
    for block in blocks_of(subject):
        for unit in layer_units(block):
            if block.is_block:
                before, target = entering_and_leaving(untouched, block.batches[1], unit.name)
                now, _ = entering_and_leaving(subject.model, block.batches[1], unit.name)
                assert torch.allclose(unit.target(1), target, atol=1e-5), unit.name
                assert torch.allclose(unit.call(1)[0][0], now, atol=1e-5), unit.name
                matters |= not torch.allclose(now, before, atol=1e-2)
            visited.append(unit.name)
            damage(subject.model, [unit.name])
    assert matters
    assert sorted(visited) == sorted(layers_of(subject.model))


def test_padding_counts_for_nothing():
    subject = subject_of("bert")
    block = next(b for b in blocks_of(subject) if b.is_block)
    unit = block_unit(block)
    changed = {name: 1.1 * weight for name, weight in weights_of(subject.model, names_in(block)).items()}
    mask = block.batches[0]["attention_mask"].bool()
    assert not mask.all()
    error, count = unit.error(0, changed)
    difference = unit.output(0, changed) - block.targets[0]
    assert float(error) == pytest.approx(float(difference[mask].square().sum()), rel=1e-4)
    assert int(count) == int(mask.sum()) * difference.shape[2]
