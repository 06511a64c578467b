"""Casting whole models."""

import pytest
import torch

from core.errors import SpecError
from core.models.meta import assign_weights, empty_weights
from core.nn.rotary import Rotary
from core.tasks.base import logits_of
from core.techniques.quantization.cast import Cast, cast_
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import TwoLayers, context, plane_subject
from tests.core.techniques.quantization.test_rtn import encoder_subject


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_all_weights_are_cast_and_logits_stay_float32(name, dtype):
    subject = plane_subject()
    batch = subject.task.batch(torch.arange(8))
    before = logits_of(subject.model, batch)
    Cast(dtype=name).apply(subject, context(subject))
    assert {p.dtype for p in subject.model.parameters()} == {dtype}
    assert subject.dtype == dtype
    after = logits_of(subject.model, batch)
    assert after.dtype == torch.float32
    assert torch.allclose(after, before, atol=0.02)
    assert not torch.equal(after, before)


def test_a_reloaded_cast_model_answers_the_same():
    subject = plane_subject()
    Cast().apply(subject, context(subject))
    with empty_weights():
        again = TwoLayers()
    assign_weights(again, subject.model.state_dict())
    batch = subject.task.batch(torch.arange(8))
    assert torch.equal(logits_of(again, batch), logits_of(subject.model, batch))


def test_integer_inputs_are_left_alone():
    subject = encoder_subject()
    Cast().apply(subject, context(subject))
    logits = logits_of(subject.model, {"input_ids": torch.tensor([[1, 2, 3]])})
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_masks_hold():
    subject = plane_subject()
    mask = torch.rand(16, 8) > 0.5
    subject.constrain("up.weight", mask=mask)
    Cast().apply(subject, context(subject))
    assert (subject.model.up.weight[~mask] == 0).all()
    assert "main.up.weight" in subject.constraints


def test_quantized_layers_keep_their_scales():
    subject = plane_subject()
    Rtn(bits=8).apply(subject, context(subject))
    weight = subject.model.up.weight()
    Cast(dtype="bf16").apply(subject, context(subject))
    assert torch.equal(subject.model.up.weight(), weight)
    assert subject.model.up.bias.dtype == torch.bfloat16


def test_what_is_computed_when_a_model_is_built_is_not_cast():
    rotary = Rotary(8)
    exact = rotary.inverse_frequency.clone()
    cast_(rotary, torch.bfloat16)
    assert torch.equal(rotary.inverse_frequency, exact)


def test_weights_beyond_float16_are_refused():
    subject = plane_subject()
    subject.model.up.weight.data[0, 0] = 1e5
    with pytest.raises(SpecError, match=r"overflow weights of .*up\.weight to infinity"):
        Cast(dtype="fp16").check(subject)
    Cast(dtype="bf16").check(subject)


def test_the_check_needs_no_weights():
    subject = plane_subject()
    subject.model.to("meta")
    Cast(dtype="fp16").check(subject)
