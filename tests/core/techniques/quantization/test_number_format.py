"""number_format on whole models."""

import copy

import pytest
import torch

from core.artifacts import artifact
from core.errors import SpecError
from core.nn.experts.packed import PackedExpertLinear
from core.nn.format_linear import FormatLinear
from core.nn.formats.catalogue import FORMATS
from core.subject import Subject
from core.techniques.quantization.number_format import NumberFormats
from tests import simulated_device
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import subject_of
from tests.core.techniques.quantization.test_rtn import encoder_subject


def applied(subject, **settings):
    technique = NumberFormats(**settings)
    technique.check(subject)
    technique.apply(subject, context(subject))
    return {name: m for name, m in subject.model.named_modules() if isinstance(m, FormatLinear)}


@pytest.mark.parametrize("format", FORMATS)
def test_block_linears_are_replaced(format):
    subject = encoder_subject()
    assert len(applied(subject, format=format)) == len(subject.details["layers"]) == 12
    assert type(subject.model.head) is torch.nn.Linear
    assert {row["bits"] for row in subject.details["layers"]} == {FORMATS[format].element.bits}
    assert len(applied(encoder_subject(), format=format, include_head=True, skip=["blocks.0.*"])) == 7


@pytest.mark.parametrize("format", [name for name, known in FORMATS.items() if known.has_zero])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_pruned_weights_stay_zero(format, granularity):
    subject = plane_subject()
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[3] = False  # a row of nothing
    subject.constrain("up.weight", mask=mask)
    applied(subject, format=format, granularity=granularity)
    assert (subject.model.up.weight()[~mask] == 0).all()
    assert subject.constraints == {}
    assert subject.model.up.count().nonzeros <= mask.sum()


def test_a_format_without_zero_refuses_pruned_weights():
    subject = plane_subject()
    subject.constrain("up.weight", mask=torch.rand(16, 8) > 0.5)
    with pytest.raises(SpecError, match="weights of up are pruned"):
        NumberFormats(format="binary").check(subject)


def test_experts_are_rounded_one_by_one():
    subject = subject_of("mixtral", depth=1)
    applied(subject, format="nvfp4")
    experts = [m for m in subject.model.modules() if isinstance(m, PackedExpertLinear)]
    assert len(experts) == 3
    tensor_scales = {float(layer.tensor_scale) for layer in experts[0].layers}
    assert len(tensor_scales) == 4  # each expert has its own


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", ["fp8_e4m3", "ternary", "binary"])
def test_scales_of_a_16_bit_model_are_in_its_dtype(format, dtype):
    subject = plane_subject()
    subject.model.to(dtype)
    layer = applied(subject, format=format)["up"]
    assert layer.scales.dtype == dtype
    assert subject.model(torch.randn(2, 8, dtype=dtype)).dtype == dtype


def test_what_is_quantized_already_is_refused():
    subject = plane_subject()
    applied(subject)
    with pytest.raises(SpecError, match="already a FormatLinear"):
        NumberFormats().check(subject)


def test_labels_tell_settings_apart():
    assert NumberFormats().label() == "MXFP4"
    assert NumberFormats(format="fp8_e4m3", granularity="block").label() == "FP8 E4M3 per block"


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_and_a_packed_tied_table_are_those_of_the_cpu_on_another_device(format):
    on_cpu = subject_of("builtin gpt", depth=1)
    with simulated_device.active(artifact) as sim:
        on_sim = Subject({"main": copy.deepcopy(on_cpu.model).to(sim)}, on_cpu.task, on_cpu.configs)
        for subject in (on_cpu, on_sim):
            applied(subject, format=format, granularity="block", include_embeddings=True)
        state, expected = on_sim.model.state_dict(), on_cpu.model.state_dict()
        assert {tensor.device for tensor in state.values()} == {sim}
        assert all(torch.equal(tensor.cpu(), expected[name]) for name, tensor in state.items())
        tokens = artifact.probe_batch(on_cpu.task)["input_ids"]
        with torch.inference_mode():
            found = on_sim.model(tokens.to(sim)).cpu()
        assert torch.allclose(found, on_cpu.model(tokens), atol=1e-4)
