"""dynamic_int8 on whole models."""

import pytest
import torch

from core.errors import SpecError
from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context, plane_subject
from tests.core.techniques.quantization.test_rtn import encoder_subject


def test_block_linears_are_replaced_and_answers_stay_close():
    subject = encoder_subject()
    ids = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    before = subject.model(ids)
    DynamicInt8().apply(subject, context(subject))
    replaced = [m for m in subject.model.modules() if isinstance(m, DynamicInt8Linear)]
    assert len(replaced) == len(subject.details["layers"]) == 12
    assert type(subject.model.head) is torch.nn.Linear
    after = subject.model(ids)
    assert (after - before).abs().max() < 0.05 * before.abs().max()
    assert not torch.equal(after, before)


def test_pruned_weights_stay_zero():
    subject = plane_subject()
    mask = torch.rand(16, 8) > 0.5
    subject.constrain("up.weight", mask=mask)
    DynamicInt8().apply(subject, context(subject))
    assert (subject.model.up.unpacked()[~mask] == 0).all()
    assert subject.constraints == {}


def test_after_another_quantization_it_is_refused():
    subject = plane_subject()
    Rtn(bits=4).apply(subject, context(subject))
    with pytest.raises(SpecError, match="already a QuantLinear"):
        DynamicInt8().check(subject)


def test_head_and_skipped_layers():
    subject = encoder_subject()
    DynamicInt8(include_head=True, skip=["blocks.1.*"]).apply(subject, context(subject))
    names = [name for name, m in subject.model.named_modules() if isinstance(m, DynamicInt8Linear)]
    assert len(names) == 7
    assert "head" in names
