"""Coverage: what the layers saw of the calibration data, against direct computations."""

import pytest
import torch

from core.calibration.coverage import LayerInputs
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.pruning.wanda import Wanda
from tests.core.calibration.models import subject_of
from tests.core.fakes import context


def test_dead_channels_and_outliers_by_hand():
    seen = LayerInputs()
    seen.add(torch.tensor([[[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]]]))
    seen.add(torch.tensor([[[0.0, 0.0, 12.0]]]))
    rms = ((9 + 16 + 144) / 9) ** 0.5
    assert seen.row() == {"tokens": 3, "inputs": 3, "dead inputs": 1, "outlier ratio": pytest.approx(12 / rms)}


def test_nothing_seen_is_said_as_such():
    seen = LayerInputs(experts=2)
    seen.add(torch.empty(1, 0, 4))
    assert seen.row() == {"tokens": 0, "fewest tokens of an expert": 0, "experts": 2}


@pytest.mark.parametrize("technique", [Wanda(calibration_examples=6), Sparsegpt(calibration_examples=6)])
def test_every_layer_is_reported_once_with_its_tokens(technique):
    subject = subject_of("builtin:gpt")
    step = context(subject)
    technique.apply(subject, step)
    rows = step.coverage.report()["layers"]
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names) and set(names) >= {row["name"] for row in subject.details["layers"]}
    assert {row["tokens"] for row in rows} == {step.coverage.tokens}
    assert all(row["outlier ratio"] >= 1 and row["dead inputs"] == 0 for row in rows)
