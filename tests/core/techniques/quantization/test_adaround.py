"""adaround's own settings; `test_learned_rounding` has what it shares with autoround."""

import pytest

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.techniques.quantization.adaround import Adaround
from tests.core.fakes import context, plane_subject
from tests.core.techniques.pruning.families import subject_of


def test_nearly_all_weights_have_their_code_before_they_are_rounded():
    subject, record = plane_subject(), MemoryRecord()
    Adaround(bits=3, iterations=200).apply(subject, context(subject, record))
    curve = record.curves["0/decided weights"]
    assert curve[0][1] < 0.2
    assert curve[-1][1] >= 0.99
    assert [step for step, _ in curve] == list(range(0, 200, 2))
    assert subject.details["layers"][0]["output_error"] < subject.details["layers"][0]["nearest_output_error"]


def test_fisher_needs_blocks():
    with pytest.raises(SpecError, match="unit is layer"):
        Adaround(loss="fisher", unit="layer").check(subject_of("vit", depth=2))
    with pytest.raises(SpecError, match="this model's are not known"):
        Adaround(loss="fisher").check(plane_subject())
    Adaround(loss="fisher").check(subject_of("vit", depth=2))


def test_labels_tell_settings_apart():
    assert Adaround().label() == "4-bit per channel"
    assert Adaround(unit="layer", symmetric=False).label() == "4-bit per channel affine layer"
