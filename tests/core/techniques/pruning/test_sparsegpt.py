"""SparseGPT on whole models: the solver's weights on sequential inputs, masks, patterns, and codes in the same pass."""

import copy
import itertools

import pytest
import torch
from torch import nn

from core.algorithms.masks import keep_largest, nm_mask, prunable_weights
from core.algorithms.second_order import Unstructured, factorize, solve
from core.calibration import input_rows, matrices_of
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.nn.quant_linear import QuantLinear
from core.nn.sparse_integer_linear import SparseQuantLinear
from core.spec.catalogue import built_in
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.calibration.models import subject_of
from tests.core.fakes import PlaneTask, TwoLayers, context, plane_subject


def whole_batch(subject: Subject) -> dict[str, torch.Tensor]:
    return subject.task.batch(torch.arange(len(subject.task)))


def weight_of(model: nn.Module, layer: str) -> torch.Tensor:
    module = model.get_submodule(layer)
    return module.weight() if isinstance(module, QuantLinear) else module.weight.detach()


@torch.no_grad()
def pruned_by_running_the_whole_model(model: nn.Module, batch, groups: list[list[list[str]]], pattern) -> nn.Module:
    """A slow oracle: for each set of layers all examples go through the whole model as it is pruned so far."""
    model = copy.deepcopy(model)
    for layers in groups:
        hessians = {}
        for name in layers:

            def note(layer, args, hessians=hessians, name=name):
                rows = input_rows(layer, args[0])[0]
                hessians[name] = 2 / len(rows) * rows.T @ rows

            handle = model.get_submodule(name).register_forward_pre_hook(note)
            logits_of(model, batch)
            handle.remove()
        for name in layers:
            weight = model.get_parameter(f"{name}.weight")
            found = solve(matrices_of(weight)[0], factorize(hessians[name]), pattern=pattern).weight
            weight.copy_(found if weight.dim() == 2 else found.unflatten(1, (*weight.shape[2:], -1)).movedim(-1, 1))
    return model


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "opt", "gpt2", "vit", "builtin:resnet"])
def test_weights_are_those_of_the_solver_on_inputs_from_the_pruned_blocks_before(name, sequential):
    subject = subject_of(name)
    blocks = anatomy(subject.model).blocks
    prunable = [name.removesuffix(".weight") for name in prunable_weights(subject.model)]
    sets = [g for block in blocks for g in block.groups] if sequential else [block.linears for block in blocks]
    expected = pruned_by_running_the_whole_model(
        subject.model, whole_batch(subject), sets or [[layer] for layer in prunable], Unstructured(0.5)
    )
    Sparsegpt(sequential=sequential).apply(subject, context(subject))
    for layer in prunable:
        found, wanted = weight_of(subject.model, layer), weight_of(expected, layer)
        near = torch.isclose(found, wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()))
        assert float(near.float().mean()) > 0.97, layer  # close scores may change places
    first = sets[0][0] if sets else prunable[0]
    assert torch.allclose(weight_of(subject.model, first), weight_of(expected, first), atol=1e-4)


@pytest.mark.parametrize("name", ["builtin:gpt", "bert", "builtin:resnet"])
@pytest.mark.parametrize("settings", [{"sparsity": 0.6}, {"structure": "n:m", "n": 1, "m": 4, "indivisible": "skip"}])
def test_masks_are_exact_and_details_tell_of_each_layer(name, settings):
    subject = subject_of(name)
    Sparsegpt(**settings).apply(subject, context(subject))
    layers = {row["name"]: row for row in subject.details["layers"]}
    for parameter, weight in prunable_weights(subject.model).items():
        mask = subject.mask(parameter)
        if "structure" in settings and weight.shape[1] % 4:
            assert mask is None
            continue
        assert not weight[~mask].any()
        if "structure" in settings:
            assert (matrices_of(mask).reshape(-1, 4).sum(1) == 1).all()
        else:
            assert int((~mask).sum()) == round(0.6 * mask.numel())
        row = layers[parameter.removesuffix(".weight")]
        assert row["sparsity"] >= 1 - float(mask.float().mean()) - 1e-6
        assert 0 < row["output_error"] < 1


@pytest.mark.parametrize("settings", [{}, {"structure": "n:m"}, {"bits": 4, "structure": "n:m"}], ids=str)
def test_what_was_pruned_stays_pruned_and_counts(settings):
    subject = plane_subject()
    MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    old = subject.mask("up.weight")
    Sparsegpt(**settings).apply(subject, context(subject))
    weight = weight_of(subject.model, "up")
    assert not weight[~old].any()
    if "structure" in settings:
        assert (torch.count_nonzero(weight.view(-1, 4), dim=1) <= old.view(-1, 4).sum(1).clamp(max=2)).all()
    else:
        assert int((weight == 0).sum()) == 64


@pytest.mark.parametrize("pattern", [{}, {"structure": "n:m"}], ids=str)
def test_outputs_change_less_than_by_magnitude_on_correlated_inputs(pattern):
    torch.manual_seed(0)
    task = PlaneTask(n_features=64)
    task.points, task.labels = torch.randn(512, 64) @ torch.randn(64, 64), torch.zeros(512).long()
    subject = Subject({"main": TwoLayers(64)}, task, {"main": {}})
    weight = subject.model.up.weight.detach().clone()
    mask = nm_mask(weight.abs(), 2, 4) if pattern else keep_largest(weight.abs(), weight.numel() // 2)
    Sparsegpt(calibration_examples=512, **pattern).apply(subject, context(subject))

    def error(changed: torch.Tensor) -> float:
        return float((task.points @ (changed.detach() - weight).T).norm() / (task.points @ weight.T).norm())

    assert error(subject.model.up.weight) < 0.85 * error(weight * mask)
    assert subject.details["layers"][0]["output_error"] == pytest.approx(error(subject.model.up.weight), rel=1e-3)


@pytest.mark.parametrize("settings", [{}, {"symmetric": False}, {"granularity": "group", "group_size": 8}], ids=str)
@pytest.mark.parametrize("pattern", [{}, {"structure": "n:m"}], ids=str)
@pytest.mark.parametrize("name", ["builtin:gpt", "llama"])
def test_kept_weights_are_quantized_in_the_same_pass(name, pattern, settings):
    subject = subject_of(name)
    layers = [parameter.removesuffix(".weight") for parameter in prunable_weights(subject.model)]
    Sparsegpt(bits=4, **pattern, **settings).apply(subject, context(subject))
    for layer in layers:
        packed = subject.model.get_submodule(layer)
        assert isinstance(packed, QuantLinear)
        assert (packed.bits, packed.symmetric) == (4, settings.get("symmetric", True))
        assert packed.group_size == settings.get("group_size")
        assert packed.scales.dtype == torch.float16
        zeros = packed.weight() == 0
        assert float(zeros.float().mean()) >= 0.5
        if pattern:
            assert (zeros.view(-1, 4).sum(1) >= 2).all()
    assert subject.constraints == {}
    assert torch.isfinite(logits_of(subject.model, whole_batch(subject))).all()


@pytest.mark.parametrize("observer", ["min-max", "percentile", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["channel", "group"])
def test_on_uncorrelated_inputs_nothing_is_compensated_and_codes_are_those_of_rtn(observer, symmetric, granularity):
    grid = {"bits": 3, "symmetric": symmetric, "observer": observer, "percentile": 90.0}
    grid |= {"granularity": granularity, "group_size": 16}
    task = PlaneTask(n_features=64)
    task.points, task.labels = torch.eye(64).repeat(8, 1) * 3, torch.zeros(512).long()
    weights = []
    for technique in (Sparsegpt(sparsity=0, calibration_examples=512, **grid), Rtn(**grid)):
        torch.manual_seed(0)
        subject = Subject({"main": TwoLayers(64)}, task, {"main": {}})
        technique.check(subject)
        technique.apply(subject, context(subject))
        weights.append(weight_of(subject.model, "up"))
    assert torch.equal(*weights)


@pytest.mark.parametrize("has_old", [False, True])
def test_codes_of_the_same_pass_are_stored_without_the_zeros(has_old):
    subject = subject_of("llama")
    if has_old:
        MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    layers = {name.removesuffix(".weight"): w.numel() for name, w in prunable_weights(subject.model).items()}
    Sparsegpt(bits=8, sparsity=0.9).apply(subject, context(subject))
    for layer, n_weights in layers.items():
        packed = subject.model.get_submodule(layer)
        assert isinstance(packed, SparseQuantLinear)
        assert packed.codes.nbytes + packed.places.nbytes < n_weights / 2


def test_quantizing_in_the_same_pass_loses_less_than_afterwards():
    errors = {True: 0.0, False: 0.0}
    for seed, joint in itertools.product(range(3), errors):
        subject = subject_of("llama")
        with torch.no_grad():
            for name, weight in prunable_weights(subject.model).items():  # one draw of weights proves little
                order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(seed + len(name)))
                weight.copy_(weight[:, order])
            dense = logits_of(subject.model, whole_batch(subject))
            Sparsegpt(structure="n:m", bits=3 if joint else None).apply(subject, context(subject))
            if not joint:
                Rtn(bits=3).apply(subject, context(subject))
            errors[joint] += float((logits_of(subject.model, whole_batch(subject)) - dense).square().mean())
    assert errors[True] < 0.95 * errors[False]


def test_convolutions_of_a_model_with_linear_layers_are_pruned_and_stay_dense():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, pixel_values):
            return self.head(self.up(self.conv(pixel_values).mean((2, 3))).relu())

    subject = subject_of("builtin:resnet")
    subject.models["main"] = Mixed()
    Sparsegpt(bits=8).apply(subject, context(subject))
    assert isinstance(subject.model.up, QuantLinear)
    assert int((subject.model.conv.weight == 0).sum()) == 36
    assert list(subject.constraints) == ["main.conv.weight"]


def test_a_training_after_it_keeps_the_mask():
    subject = plane_subject()
    Sparsegpt().apply(subject, context(subject))
    mask = subject.mask("up.weight").clone()
    Train(steps=4, evaluations=0).apply(subject, context(subject))
    assert torch.equal(subject.model.up.weight != 0, mask)


def test_inputs_that_are_no_numbers_end_the_step_with_the_reason():
    subject = plane_subject()
    subject.task.points[3, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        Sparsegpt().apply(subject, context(subject))


def test_what_cannot_be_done_is_refused_before_anything_is_computed():
    with pytest.raises(SpecError, match="bits = 4"):
        Sparsegpt(bits=4).check(subject_of("builtin:resnet"))
    with pytest.raises(SpecError, match="group_size = 10"):
        Sparsegpt(bits=4, granularity="group", group_size=10, structure="n:m").check(plane_subject())
    Sparsegpt(granularity="group", group_size=10, structure="n:m").check(plane_subject())  # is not asked for


def test_a_recipe_that_quantizes_twice_is_refused_only_where_it_does():
    def spec(**settings):
        recipe = [{"sparsegpt": settings}, {"rtn": {}}]
        return RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": recipe})

    validate(spec(), built_in())
    with pytest.raises(SpecError, match="cannot follow sparsegpt, which leaves integer codes"):
        validate(spec(bits=4), built_in())


def test_label_is_the_share_or_the_pattern_and_the_bits():
    assert Sparsegpt().label() == "50 %"
    assert Sparsegpt(structure="n:m", bits=4).label() == "2:4 4-bit"
    assert Sparsegpt(structure="n:m", bits=4, observer="mse").label() == "2:4 4-bit mse"
    assert Sparsegpt(observer="mse").label() == "50 %"  # there is no grid
