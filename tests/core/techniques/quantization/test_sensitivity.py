"""The sensitivity step: what it measures, and that the model stays as it is."""

import copy

import pytest
import torch
from torch.nn import functional as F

from core.allocation.table import SensitivityTable
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.tasks.base import Kind, logits_of
from core.techniques.quantization.rtn import Rtn
from core.techniques.quantization.sensitivity import Sensitivity
from tests.core.fakes import context
from tests.core.techniques.pruning.families import RandomTask, kind_of, subject_of

KINDS = {"image": Kind.IMAGE_CLASSIFICATION, "text": Kind.LANGUAGE_MODELLING, "padded": Kind.TEXT_CLASSIFICATION}
FEW = {"bits": [3, 8], "granularities": ["channel"], "calibration_examples": 8}


class LossTask(RandomTask):
    """Random inputs with a loss."""

    def loss(self, logits, batch):
        return F.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten())


def made(family="builtin vit", **more):
    subject = subject_of(family, depth=2, **more)
    subject.task = LossTask(subject.task.kind_of_input)
    subject.task.kind = KINDS[kind_of(family)]
    return subject


def measured(subject, **settings):
    step = Sensitivity(**{**FEW, **settings})
    step.check(subject)
    record = MemoryRecord()
    step.apply(subject, context(subject, record))
    return SensitivityTable.from_json(subject.details["sensitivity"]), record


def calibration(subject, n=8):
    return next(context(subject).calibration(n))


@pytest.mark.parametrize("family", ["builtin vit", "llama"])
def test_layers_that_share_their_input_are_one_group(family):
    table, _ = measured(made(family))
    found = [[name.rpartition(".")[2] for name in group.layers] for group in table.groups]
    expected = {
        "builtin vit": [["q", "k", "v"], ["o"], ["up"], ["down"]],
        "llama": [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]],
    }
    assert found == 2 * expected[family]
    assert len({group.block for group in table.groups}) == 2


def test_kl_and_loss_are_those_of_a_model_with_that_group_alone_rounded():
    subject = made()
    by_kl, by_loss = (measured(subject, method=method)[0] for method in ("kl", "loss"))
    batch = calibration(subject)
    with torch.inference_mode():
        before = logits_of(subject.model, batch).double()
        for index in (0, 3):
            other = copy.deepcopy(subject)
            group = by_kl.groups[index].layers
            skip = [name for each in by_kl.groups for name in each.layers if name not in group]
            Rtn(bits=3, observer="mse", skip=skip).apply(other, context(other))
            after = logits_of(other.model, batch).double()
            p, q = before.log_softmax(-1), after.log_softmax(-1)
            assert by_kl.losses[index, 1] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
            increase = float(F.cross_entropy(after, batch["labels"]) - F.cross_entropy(before, batch["labels"]))
            assert by_loss.losses[index, 1] == pytest.approx(increase, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("method", ["kl", "loss", "fisher", "hessian"])
def test_the_model_stays_as_it_is_and_more_bits_cost_less(method):
    subject = made()
    before = copy.deepcopy(subject.model.state_dict())
    modules = dict(subject.model.named_modules())
    table, record = measured(subject, method=method)
    assert dict(subject.model.named_modules()) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.model.state_dict().items())
    losses = table.losses
    assert (losses[:, 0] == 0).all()
    assert abs(losses[:, 2]).sum() < 0.05 * abs(losses[:, 1]).sum()
    assert record.events[-1][1].startswith("most sensitive at 3-bit: ")


def test_fisher_is_the_sum_over_weights_of_squared_gradients_and_changes():
    subject = made()
    table, _ = measured(subject, method="fisher")
    layer, batch = subject.model.blocks[0].ffn.up, calibration(subject)
    squares = torch.zeros_like(layer.weight.detach())
    for index in range(8):
        example = {name: value[index : index + 1] for name, value in batch.items()}
        loss = subject.task.loss(logits_of(subject.model, example), example)
        squares += torch.autograd.grad(loss, layer.weight)[0].detach().square() / 8
    change = (Rtn(bits=3, observer="mse").quantize(layer).weight() - layer.weight).detach()
    expected = float(0.5 * (squares * change.square()).sum())
    index = next(i for i, group in enumerate(table.groups) if group.layers == ["blocks.0.ffn.up"])
    assert table.losses[index, 1] == pytest.approx(expected, rel=1e-4)


def test_a_planted_sensitive_layer_is_found():
    for method in ("kl", "fisher"):
        subject = made()
        layer = subject.model.blocks[1].ffn.down
        with torch.no_grad():
            layer.weight[:, 3] = 12 * torch.sign(layer.weight[:, 3])  # one input makes every row's grid coarse
        table, _ = measured(subject, method=method)
        worst = table.groups[int(table.losses[:, 1].argmax())].layers
        assert worst == ["blocks.1.ffn.down"], method
        ratios = {profile["name"]: profile["weights"]["outlier_ratio"] for profile in subject.details["profiles"]}
        assert max(ratios, key=ratios.get) == "blocks.1.ffn.down"


def test_activations_of_8_bits_are_measured_too():
    table, _ = measured(made(), int8_activations=True)
    assert table.formats[-1].name == "W8A8"
    assert (table.losses[:, -1] > 0).all()
    assert (table.losses[:, -1] != table.losses[:, 2]).all()
    with pytest.raises(SpecError, match="rounded activations"):
        Sensitivity(method="fisher", int8_activations=True).check(made())


def test_multiply_accumulates_are_those_of_one_example():
    table, _ = measured(made("llama"))
    layers = {name: made("llama").model.get_submodule(name) for name in table.groups[0].layers}
    assert table.groups[0].macs == 12 * sum(layer.weight.numel() for layer in layers.values())  # 12 tokens


def test_experts_have_no_second_derivative():
    subject = made("mixtral")
    with pytest.raises(SpecError, match="second derivative"):
        Sensitivity(method="hessian").check(subject)
    table, _ = measured(subject, method="fisher")
    assert any("experts" in name for group in table.groups for name in group.layers)


def test_profiles_hold_counts_of_bins_and_no_values():
    subject = made()
    measured(subject)
    profile = subject.details["profiles"][0]
    assert profile["name"] == "blocks.0.attention.q"
    assert sum(profile["weights"]["histogram"]) == subject.model.blocks[0].attention.q.weight.numel()
    tokens = 8 * (16 + 1)  # patches and the class token
    assert sum(profile["inputs"]["histogram"]) == tokens * 32


def test_the_label_tells_the_method_and_the_bits():
    assert Sensitivity().label() == "kl at 2, 3, 4, 6, 8 bit"
