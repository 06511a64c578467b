"""Activation quantization on models of every family, alone and after a step that quantized the weights."""

import copy

import pytest
import torch

from core.artifacts import artifact
from core.errors import SpecError
from core.nn.activation_quant_linear import QuantizedInput
from core.nn.experts.packed import PackedExpertLinear
from core.nn.sparse_integer_linear import SparseActivationQuantLinear
from core.tasks.base import logits_of
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.quantization.activation_quantization import ActivationQuantization
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.pruning.families import BUILTIN, HUGGING_FACE, loaded, subject_of

SCALES = ("static", "per-tensor", "per-token")


@torch.no_grad()
def answers(subject):
    return logits_of(subject.model, artifact.probe_batch(subject.task)).float()


def applied(step, subject):
    changed = copy.deepcopy(subject)
    step.check(changed)
    step.apply(changed, context(changed))
    return changed


def error(subject, reference):
    return ((answers(subject) - answers(reference)).norm() / answers(reference).norm()).item()


def layers(subject):
    return {name: m for name, m in subject.model.named_modules() if isinstance(m, QuantizedInput)}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("family", [*HUGGING_FACE, *BUILTIN, "mixtral"])
def test_fewer_bits_cost_more_in_every_family(family, scale):
    subject = subject_of(family, depth=2)
    errors = []
    for bits, activation_bits in ((8, 8), (6, 6), (4, 4)):
        step = ActivationQuantization(bits=bits, activation_bits=activation_bits, activation_scale=scale)
        errors.append(error(applied(step, subject), subject))
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.05


@pytest.mark.parametrize("observer", ["min-max", "ema", "percentile", "mse"])
def test_layers_that_share_their_input_share_a_static_scale_which_reloads(observer, tmp_path):
    subject = subject_of("llama", depth=2)
    step = ActivationQuantization(activation_scale="static", activation_observer=observer, activation_symmetric=False)
    changed = applied(step, subject)
    found = {
        name.rpartition(".")[2]: layer.activation for name, layer in layers(changed).items() if ".layers.0." in name
    }
    assert found["q_proj"].state_dict() == found["k_proj"].state_dict() == found["v_proj"].state_dict()
    assert found["q_proj"].static_scale != found["o_proj"].static_scale
    artifact.save(changed, tmp_path, loaded(changed))
    with torch.inference_mode():
        again = logits_of(artifact.load_models(tmp_path)["main"], artifact.probe_batch(changed.task))
    assert torch.equal(again, answers(changed))


def test_integer_weights_of_an_earlier_step_stay():
    subject = applied(Rtn(bits=4, granularity="group", group_size=16, skip=["*.o"]), subject_of("builtin gpt", depth=2))
    changed = applied(ActivationQuantization(activation_scale="static"), subject)
    assert len(layers(changed)) == 10  # not the two that were left dense
    for name, layer in layers(changed).items():
        before = subject.model.get_submodule(name)
        assert torch.equal(layer.codes, before.codes) and torch.equal(layer.scales, before.scales)
    assert 0 < error(changed, subject) < 0.05


def test_each_expert_has_the_range_of_its_own_tokens():
    subject = subject_of("mixtral", depth=2)
    for start in (subject, applied(Rtn(bits=8), subject)):
        changed = applied(ActivationQuantization(activation_scale="static", activation_observer="min-max"), start)
        packed = [m for m in changed.model.modules() if isinstance(m, PackedExpertLinear)]
        assert len(packed) == 6
        for module in packed:
            assert all(isinstance(layer, QuantizedInput) for layer in module.layers)
        ranges = {layer.activation.static_scale.item() for layer in packed[0].layers}
        assert len(ranges) > 1
        assert error(changed, start) < 0.05


def test_pruned_weights_stay_zero_and_are_not_stored():
    subject = applied(MagnitudePruning(sparsity=0.9), subject_of("builtin gpt", depth=2))
    masks = {name.removeprefix("main.").removesuffix(".weight"): c.tensor for name, c in subject.constraints.items()}
    changed = applied(ActivationQuantization(bits=8, activation_scale="static"), subject)
    assert any(isinstance(layer, SparseActivationQuantLinear) for layer in layers(changed).values())
    for name, layer in layers(changed).items():
        assert not layer.weight()[~masks[name]].any()


@pytest.mark.parametrize("first", [DynamicInt8(), ActivationQuantization()])
def test_activations_are_not_quantized_twice(first):
    subject = applied(first, subject_of("builtin vit", depth=2))
    with pytest.raises(SpecError, match="quantized already"):
        ActivationQuantization().check(subject)


def test_the_label_names_bits_and_scales():
    assert ActivationQuantization(bits=4).label() == "W4 A8 per-token"
    step = ActivationQuantization(activation_bits=4, activation_scale="static", activation_symmetric=False)
    assert step.label() == "W8 A4 static affine mse"
