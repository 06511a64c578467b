"""autoround's own settings; `test_learned_rounding` has what it shares with adaround."""

import torch

from core.nn.quant_linear import QuantLinear
from core.techniques.quantization.autoround import BUDGETS, Autoround
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context, plane_subject


def test_budgets_are_those_of_the_published_code():
    assert [(b.iterations, b.learning_rate, b.examples) for b in BUDGETS.values()] == [
        (50, 0.005, 128), (200, 0.005, 128), (1000, 0.001, 512),
    ]  # fmt: skip


def test_steps_that_only_do_harm_leave_rounding_to_nearest():
    subject, nearest = plane_subject(), plane_subject()
    Autoround(bits=4, iterations=1, learning_rate=1.0).apply(subject, context(subject))
    Rtn(bits=4).apply(nearest, context(nearest))
    (row,) = subject.details["layers"]
    assert row["output_error"] == row["nearest_output_error"]
    assert torch.equal(subject.model.up.weight(), nearest.model.up.weight())


def test_the_range_is_learned_unless_it_is_to_stay():
    scales = []
    for learn_range in (True, False):
        subject, nearest = plane_subject(), plane_subject()
        Autoround(bits=3, iterations=40, learn_range=learn_range).apply(subject, context(subject))
        Rtn(bits=3).apply(nearest, context(nearest))
        assert isinstance(subject.model.up, QuantLinear)
        scales.append(torch.equal(subject.model.up.scales, nearest.model.up.scales))
    assert scales == [False, True]


def test_labels_tell_settings_apart():
    assert Autoround(budget="light", granularity="group").label() == "4-bit per group of 128 light"
    assert Autoround(symmetric=False).label() == "4-bit per channel affine default"
