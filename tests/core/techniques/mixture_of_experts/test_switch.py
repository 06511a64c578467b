"""Switch as a step: its initial weights, and what it says of a trained model."""

import pytest

from core.engine.recording import MemoryRecord
from core.techniques.mixture_of_experts.switch import Switch
from tests.core.fakes import context
from tests.core.techniques.mixture_of_experts.subjects import applied, gpt, mixtures


def test_fresh_weights_are_drawn_narrowly_and_cut_off():
    switch = mixtures(applied("switch", experts=64))["blocks.1.ffn"]
    for weight, n_in in ((switch.router, 16), (switch.experts.up.weight, 16), (switch.experts.down.weight, 48)):
        assert weight.abs().max().item() <= 2 * (0.1 / n_in) ** 0.5
        # a normal distribution cut off at two standard deviations keeps 0.88 of them
        assert weight.std().item() == pytest.approx(0.88 * (0.1 / n_in) ** 0.5, rel=0.05)


def test_a_trained_model_under_switch_is_said_to_be_scaled():
    subject, record = gpt(trained=True), MemoryRecord()
    Switch(experts=4).apply(subject, context(subject, record))
    assert "about 1/4" in record.events[0][1] and record.events[0][0] == "warning"


def test_its_settings_are_the_modules():
    switch = mixtures(applied("switch", capacity_factor=1.5, eval_capacity_factor=None, reroutes=2, jitter=0.0))
    own = switch["blocks.1.ffn"].arguments()
    assert (own["capacity_factor"], own["eval_capacity_factor"], own["reroutes"], own["jitter"]) == (1.5, None, 2, 0.0)
    assert (own["balance_weight"], own["group"]) == (0.01, "batch")
