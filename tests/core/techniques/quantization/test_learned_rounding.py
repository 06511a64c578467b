"""adaround and autoround on whole models."""

import copy

import pytest
import torch
from torch import nn

from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.engine.recording import MemoryRecord
from core.errors import Cancelled, SpecError
from core.models.anatomy import prunable
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseQuantLinear
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.quantization.adaround import Adaround
from core.techniques.quantization.autoround import BUDGETS, Autoround
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import subject_of

STEPS = {
    "adaround": Adaround(bits=3, iterations=60, batch_size=8),
    "adaround layer": Adaround(bits=3, iterations=30, batch_size=8, unit="layer", symmetric=False),
    "adaround fisher": Adaround(bits=3, iterations=60, batch_size=8, loss="fisher"),
    "autoround": Autoround(bits=3, iterations=15),
    "autoround groups": Autoround(bits=3, iterations=15, symmetric=False, granularity="group", group_size=8),
}


def applied(step: Adaround | Autoround, subject: Subject, record: MemoryRecord | None = None) -> Subject:
    if not hasattr(subject.task, "loss"):
        subject.task.loss = lambda logits, batch: logits.logsumexp(-1).mean()
    step.check(subject)
    step.apply(subject, context(subject, record))
    return subject


def packed(model: nn.Module) -> dict[str, QuantLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantLinear)}


@pytest.mark.parametrize("family", ["builtin gpt", "llama", "bert", "vit"])
@pytest.mark.parametrize("name", STEPS)
def test_no_block_errs_more_than_rounding_to_nearest_and_some_err_less(name, family):
    subject = subject_of(family, depth=2)
    names = prunable(subject.model)
    applied(STEPS[name], subject)
    rows = subject.details["layers"]
    assert [row["name"] for row in rows] == names == list(packed(subject.model))
    assert all(row["output_error"] <= row["nearest_output_error"] for row in rows)
    assert sum(row["output_error"] for row in rows) < 0.9 * sum(row["nearest_output_error"] for row in rows)


@pytest.mark.parametrize("name", ["adaround", "autoround groups"])
def test_the_reported_error_is_that_of_the_first_blocks_outputs(name):
    subject = subject_of("llama", depth=2)
    outputs = [first_outputs(subject)]
    nearest = copy.deepcopy(subject)
    scheme = STEPS[name].scheme(3)
    for layer in prunable(nearest.model):
        linear = nearest.model.get_submodule(layer)
        made = scheme.pack(linear, lambda fit, size, linear=linear: quantize_groups(linear.weight, fit, size))
        linear.weight.data.copy_(made.weight())
    applied(STEPS[name], subject)
    outputs += [first_outputs(subject), first_outputs(nearest)]
    expected = [float((o - outputs[0]).norm() / outputs[0].norm()) for o in outputs[1:]]
    row = subject.details["layers"][0]
    assert [row["output_error"], row["nearest_output_error"]] == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def first_outputs(subject: Subject) -> torch.Tensor:
    outputs = []
    handle = subject.model.model.layers[0].register_forward_hook(
        lambda m, args, output: outputs.append(output[0] if isinstance(output, tuple) else output)
    )
    logits_of(subject.model, subject.task.batch(torch.arange(24)))
    handle.remove()
    return outputs[0]


@pytest.mark.parametrize("name", STEPS)
def test_the_same_run_gives_the_same_codes(name):
    models = [applied(STEPS[name], subject_of("builtin gpt", depth=2)).model for _ in range(2)]
    for first, second in zip(*(packed(model).values() for model in models), strict=True):
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.scales, second.scales)


@pytest.mark.parametrize("name", ["adaround", "adaround layer", "autoround"])
def test_experts_are_packed_each_on_its_own(name):
    subject = subject_of("mixtral", depth=2)
    experts = {n: m for n, m in subject.model.named_modules() if isinstance(m, ExpertLinear)}
    before = {n: m.weight.detach().clone() for n, m in experts.items()}
    applied(STEPS[name], subject)
    assert experts
    for layer, weight in before.items():
        made = subject.model.get_submodule(layer)
        assert isinstance(made, PackedExpertLinear)
        found = torch.cat([own.weight() for own in made.layers])
        assert 0 < float((found - weight).norm()) < 0.6 * float(weight.norm())


@pytest.mark.parametrize("name", ["adaround", "adaround layer", "autoround", "autoround groups"])
def test_pruned_weights_stay_zero(name):
    subject = subject_of("builtin gpt", depth=2)
    layers = prunable(subject.model)
    masks = {}
    for index, layer in enumerate(layers):
        shape = subject.model.get_parameter(f"{layer}.weight").shape
        masks[layer] = torch.rand(shape, generator=torch.Generator().manual_seed(index)) > 0.5
        subject.constrain(f"{layer}.weight", mask=masks[layer])
    applied(STEPS[name], subject)
    assert any(isinstance(m, SparseQuantLinear) for m in subject.model.modules())
    for layer, mask in masks.items():
        assert not subject.model.get_submodule(layer).weight()[~mask].any()
    assert not subject.constraints


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["adaround fisher", "autoround"])
def test_16_bit_models_are_learned_in_float32(name, dtype):
    subject = applied(STEPS[name], subject_of("llama", depth=2, dtype=dtype))
    rows = subject.details["layers"]
    assert all(row["output_error"] < row["nearest_output_error"] for row in rows)
    assert subject.dtype == dtype
    assert {m.scales.dtype for m in packed(subject.model).values()} == {dtype}


@pytest.mark.parametrize("name", STEPS)
def test_layers_outside_of_blocks_are_learned_on_what_they_get(name):
    if name == "adaround fisher":
        with pytest.raises(SpecError, match="this model's are not known"):
            STEPS[name].check(plane_subject())
        return
    subject = applied(STEPS[name].model_copy(update={"include_head": True}), plane_subject())
    assert list(packed(subject.model)) == ["up", "head"]
    assert all(row["output_error"] <= row["nearest_output_error"] for row in subject.details["layers"])


def test_nearly_all_weights_have_their_code_before_they_are_rounded():
    record = MemoryRecord()
    applied(Adaround(bits=3, iterations=200), plane_subject(), record)
    curve = record.curves["0/decided weights"]
    assert curve[0][1] < 0.2
    assert curve[-1][1] >= 0.99
    assert [step for step, _ in curve] == list(range(0, 200, 2))


def test_fisher_needs_blocks():
    with pytest.raises(SpecError, match="unit is layer"):
        Adaround(loss="fisher", unit="layer").check(subject_of("vit", depth=2))


def test_budgets_are_those_of_the_published_code():
    assert [(b.iterations, b.learning_rate, b.examples) for b in BUDGETS.values()] == [
        (50, 0.005, 128), (200, 0.005, 128), (1000, 0.001, 512),
    ]  # fmt: skip


class Cancelling(MemoryRecord):
    def progress(self, fraction: float, text: str) -> None:
        if fraction > 0.6:
            raise Cancelled
        super().progress(fraction, text)


@pytest.mark.parametrize("name", ["adaround layer", "autoround"])
def test_a_cancelled_run_stops_inside_a_block_and_progress_only_rises(name):
    subject, record = subject_of("builtin gpt", depth=2), Cancelling()
    with pytest.raises(Cancelled):
        applied(STEPS[name], subject, record)
    assert {name.split(".")[1] for name in packed(subject.model)} <= {"0", "1"}
    assert type(subject.model.blocks[1].ffn.down) is nn.Linear


def test_labels_tell_settings_apart():
    assert Adaround().label() == "4-bit per channel"
    assert Adaround(unit="layer", symmetric=False).label() == "4-bit per channel affine layer"
    assert Autoround(budget="light", granularity="group").label() == "4-bit per group of 128 light"
    assert Adaround().scheme(4) == QuantizationScheme(4)
