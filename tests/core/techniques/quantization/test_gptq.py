"""GPTQ on whole models: the solver's weights, its grids, masks, experts, and what it does without a usable Hessian."""

from functools import partial

import pytest
import torch
from torch import nn

from core.algorithms import second_order_layers
from core.algorithms.quantization_grids import min_max
from core.algorithms.rounding import Rounding
from core.algorithms.second_order import factorize, solve
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.nn.experts.packed import PackedExpertLinear
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseQuantLinear
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.gptq import Gptq
from core.techniques.quantization.imatrix import Imatrix
from core.techniques.quantization.rtn import Rtn
from tests.core.calibration.models import subject_of
from tests.core.fakes import PlaneTask, TwoLayers, context
from tests.core.techniques.mixture_of_experts.test_pruning_by_inputs import (
    inputs_of_layers,
    mixture_of,
    own_tokens,
    with_experts,
)

GROUPS = {"granularity": "group", "group_size": 8}


def plane(inputs: torch.Tensor, seed: int = 0) -> Subject:
    """Two layers with random weights, and these inputs [n, d] as calibration data."""
    task = PlaneTask()
    task.points, task.labels = inputs, torch.zeros(len(inputs)).long()
    torch.manual_seed(seed)
    return Subject({"main": TwoLayers(inputs.shape[1])}, task, {"main": {}})


def correlated(n: int = 512, d: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)


def apply(technique, subject: Subject, record: MemoryRecord | None = None) -> Subject:
    technique.check(subject)
    technique.apply(subject, context(subject, record))
    return subject


def logits(subject: Subject) -> torch.Tensor:
    with torch.no_grad():
        return logits_of(subject.model, subject.task.batch(torch.arange(len(subject.task))))


@pytest.mark.parametrize("settings", [{}, GROUPS, {"symmetric": False, **GROUPS}, {"act_order": False}], ids=str)
def test_codes_are_the_solvers_on_the_layers_own_inputs(settings):
    x = correlated()
    subject = plane(x)
    weight = subject.model.up.weight.detach().clone()
    apply(Gptq(bits=3, calibration_examples=512, **settings), subject)
    fit = partial(min_max, bits=3, symmetric=settings.get("symmetric", True), dtype=torch.float16)
    act_order = settings.get("act_order", True)
    grids = Rounding(fit, settings.get("group_size"), static=act_order)
    hessian = 2 / 512 * x.T @ x
    found = solve(weight, factorize(hessian, act_order=act_order), rounding=grids)
    packed = subject.model.up
    assert isinstance(packed, QuantLinear)
    assert float((packed.weight() - found.weight).abs().max()) <= float(packed.scales.max()) * 1.01
    assert float((packed.weight() == found.weight).float().mean()) > 0.99  # sums over batches differ in the last bits
    assert torch.equal(packed.scales.float(), grids.result().scales)


@pytest.mark.parametrize("settings", [{"bits": 3}, {"bits": 4, **GROUPS}, {"bits": 4, "symmetric": False}], ids=str)
@pytest.mark.parametrize("act_order", [True, False])
def test_on_correlated_inputs_outputs_change_less_than_with_rounding_to_nearest(settings, act_order):
    x = correlated()
    weight = plane(x).model.up.weight.detach().clone()

    def error(technique) -> float:
        packed = apply(technique, plane(x)).model.up
        return float((x @ (packed.weight() - weight).T).norm() / (x @ weight.T).norm())

    technique = Gptq(calibration_examples=512, act_order=act_order, **settings)
    found = error(technique)
    assert found < 0.85 * error(Rtn(**settings))
    row = apply(technique, plane(x)).details["layers"][0]
    assert row["output_error"] == pytest.approx(found, rel=1e-3)
    assert (row["bits"], row["weights"]) == (settings["bits"], 16 * 64)


@pytest.mark.parametrize("observer", ["min-max", "percentile", "mse", "imatrix"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_on_uncorrelated_inputs_codes_are_those_of_rounding_to_nearest(observer, symmetric, granularity):
    grid = {"bits": 3, "symmetric": symmetric, "granularity": granularity, "group_size": 16}
    sizes = torch.linspace(1, 4, 64)
    x = (torch.eye(64) * sizes).repeat(8, 1)  # the largest come last
    nearest = (
        Imatrix(calibration_examples=512, **grid)
        if observer == "imatrix"
        else Rtn(observer=observer, percentile=90.0, **grid)
    )
    expected = apply(nearest, plane(x)).model.up.weight()
    for act_order in (True, False):
        technique = Gptq(observer=observer, percentile=90.0, act_order=act_order, calibration_examples=512, **grid)
        found = apply(technique, plane(x)).model.up.weight()
        assert float((found == expected).float().mean()) > (0.95 if observer == "imatrix" else 0.9999)


@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "opt", "gpt2", "bert", "vit"])
@pytest.mark.parametrize("sequential", [False, True])
def test_every_family_is_quantized_and_loses_less_than_by_rounding_to_nearest(name, sequential):
    dense = logits(subject_of(name))
    subject = subject_of(name)
    layers = [layer for block in anatomy(subject.model).blocks for layer in block.linears]
    apply(Gptq(bits=3, sequential=sequential), subject)
    assert layers
    assert all(isinstance(subject.model.get_submodule(layer), QuantLinear) for layer in layers)
    assert {row["name"] for row in subject.details["layers"]} >= set(layers)
    assert subject.constraints == {}
    nearest = logits(apply(Rtn(bits=3), subject_of(name)))
    assert (logits(subject) - dense).square().mean() < (nearest - dense).square().mean()


@pytest.mark.parametrize("settings", [{}, {"symmetric": False, "observer": "imatrix", **GROUPS}], ids=str)
@pytest.mark.parametrize("act_order", [True, False])
def test_pruned_weights_stay_zero_and_are_not_stored(settings, act_order):
    subject = subject_of("llama")
    MagnitudePruning(sparsity=0.8).apply(subject, context(subject))
    masks = {name: c.tensor.clone() for name, c in subject.constraints.items()}
    apply(Gptq(act_order=act_order, **settings), subject)
    assert masks
    for name, mask in masks.items():
        packed = subject.model.get_submodule(name.removeprefix("main.").removesuffix(".weight"))
        assert isinstance(packed, SparseQuantLinear)
        assert not packed.weight()[~mask].any()
    assert subject.constraints == {}


def test_inputs_that_are_always_zero_cost_nothing_and_their_weights_become_zero():
    x = correlated()
    x[:, [5, 40]] = 0
    subject = apply(Gptq(bits=4, calibration_examples=512), plane(x))
    assert not subject.model.up.weight()[:, [5, 40]].any()
    assert torch.isfinite(subject.model.up.weight()).all()


@pytest.mark.parametrize("kind", ["builtin gpt", "builtin gpt gated"])
@pytest.mark.parametrize("act_order", [True, False])
def test_experts_are_quantized_each_by_its_own_tokens(kind, act_order):
    subject, dense = with_experts(kind), with_experts(kind)
    apply(Gptq(bits=3, granularity="channel", act_order=act_order), subject)
    tokens = own_tokens(dense, subject)
    for key, layer in mixture_of(dense).experts.layers().items():
        packed = getattr(mixture_of(subject).experts, key)
        assert isinstance(packed, PackedExpertLinear)
        for expert, (linear, matrix) in enumerate(zip(layer.linears(), packed.layers, strict=True)):
            x = inputs_of_layers(dense, expert, tokens[expert])[key]
            grids = Rounding(partial(min_max, bits=3, symmetric=True, dtype=torch.float16))
            found = solve(linear.weight, factorize(2 / len(x) * x.T @ x, act_order=act_order), rounding=grids)
            assert float((matrix.weight() == found.weight).float().mean()) > 0.97, (key, expert)


def test_a_hessian_that_nothing_helps_leaves_rounding_to_nearest_with_a_warning(monkeypatch):
    x = correlated()

    def broken(hessian, damping, act_order):
        hessian = hessian.clone()
        hessian[3, 9] = hessian[9, 3] = 1e9 * hessian.diagonal().max()
        return factorize(hessian, damping, act_order=act_order)

    monkeypatch.setattr(second_order_layers, "factorize", broken)
    record = MemoryRecord()
    found = apply(Gptq(bits=4, calibration_examples=512), plane(x), record).model.up
    assert torch.equal(found.weight(), apply(Rtn(bits=4), plane(x)).model.up.weight())
    assert [(level, message) for level, message in record.events if "nearest" in message] == [
        (
            "warning",
            "the Hessian of up is not positive definite with damping 0.01, nor with more: "
            "its weights were rounded to nearest",
        )
    ]


def test_more_damping_is_told(monkeypatch):
    def shifted(hessian, damping, act_order):
        least = torch.linalg.eigvalsh(hessian.double())[0]
        shift = (least + 0.05 * hessian.diagonal().mean().double()) * torch.eye(len(hessian))
        return factorize(hessian - shift, damping, act_order=act_order)

    monkeypatch.setattr(second_order_layers, "factorize", shifted)
    record = MemoryRecord()
    apply(Gptq(calibration_examples=512), plane(correlated()), record)
    assert any("of up is not positive definite with damping 0.01: 0.1 was used" in m for _, m in record.events)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_stay_half(dtype):
    subject = subject_of("llama")
    subject.model.to(dtype)
    apply(Gptq(**GROUPS), subject)
    layer = next(m for m in subject.model.modules() if isinstance(m, QuantLinear))
    assert layer.scales.dtype == dtype
    assert torch.isfinite(logits(subject)).all()


def test_the_head_only_when_asked_and_skipped_layers_stay():
    subject = apply(Gptq(include_head=True, skip=["model.layers.0.*"]), subject_of("llama"))
    packed = [name for name, module in subject.model.named_modules() if isinstance(module, QuantLinear)]
    assert "lm_head" in packed
    assert not any(name.startswith("model.layers.0.") for name in packed)
    assert type(apply(Gptq(), subject_of("llama")).model.lm_head) is nn.Linear
    with pytest.raises(SpecError, match="matches no module"):
        Gptq(skip=["nothing"]).check(subject_of("llama"))


def test_labels_tell_settings_apart():
    assert Gptq().label() == "4-bit per group of 128"
    settings = {"granularity": "channel", "symmetric": False, "observer": "imatrix"}
    assert Gptq(bits=3, **settings).label() == "3-bit per channel affine imatrix"
