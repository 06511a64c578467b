"""LLM.int8 on models of every family with planted outliers."""

import pytest

from core.nn.llm_int8_linear import LlmInt8Linear
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.llm_int8 import LlmInt8
from tests.core.techniques.quantization.test_activation_quantization import applied, error
from tests.core.techniques.quantization.test_smoothquant import FAMILIES, planted


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_outlier_columns_apart_costs_less(family):
    subject = planted(family)
    changed = applied(LlmInt8(), subject)
    assert any(isinstance(m, LlmInt8Linear) for m in changed.model.modules())
    assert error(changed, subject) < 0.7 * error(applied(DynamicInt8(), subject), subject)
