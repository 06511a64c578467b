"""Noisy top-k as a step: its initial weights, and experts of another width."""

import pytest

from tests.core.techniques.mixture_of_experts.subjects import applied, gpt, mixtures


def test_routers_begin_at_zero_and_experts_as_the_network_was_drawn():
    moe = mixtures(applied("moe", experts=64))["blocks.1.ffn"]
    assert not moe.router.any() and not moe.noise_router.any()
    dense = gpt().model.blocks[1].ffn.up.weight
    assert moe.experts.up.weight.std().item() == pytest.approx(dense.std().item(), rel=0.05)


def test_width_is_a_share_of_the_networks():
    subject = applied("moe", expert_width=0.5)
    assert mixtures(subject)["blocks.1.ffn"].form.hidden == 24


def test_its_settings_are_the_modules():
    own = mixtures(applied("moe", k=3, importance_weight=0.2, load_weight=0.0))["blocks.1.ffn"].arguments()
    assert (own["choices"], own["importance_weight"], own["load_weight"]) == (3, 0.2, 0.0)
