"""Ranks by measured loss: the budget holds, nothing is worse than equal shares, and the model is not left changed."""

import copy

import pytest
import torch

from core.algorithms.trial_weights import trial_weights
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.anatomy import prunable
from core.nn.experts.linear import ExpertLinear
from core.nn.low_rank_linear import LowRankLinear
from core.techniques.low_rank.measured_ranks import Spectrum
from core.techniques.low_rank.svd import Svd
from tests.core.fakes import context
from tests.core.techniques.pruning.families import subject_of


def factored(subject, **settings):
    record = MemoryRecord()
    step = Svd(ranks="measured", calibration_examples=8, **settings)
    step.check(subject)
    step.apply(subject, context(subject, record))
    return record


@pytest.mark.parametrize("family", ["builtin vit", "mixtral"])
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_all_layers_together_keep_at_most_the_share(kept, family):
    subject = subject_of(family, depth=2)
    names = prunable(subject.model, (torch.nn.Linear, ExpertLinear))
    before = sum(subject.model.get_parameter(f"{name}.weight").numel() for name in names)
    factored(subject, kept=kept)
    layers = [subject.model.get_submodule(name) for name in names]
    after = sum(p.numel() for layer in layers for n, p in layer.named_parameters() if n.endswith("weight"))
    assert after <= kept * before


def test_a_layer_of_low_rank_gives_its_weights_to_others():
    subject = subject_of("builtin vit", depth=2)
    simple = subject.model.blocks[0].ffn.up
    with torch.no_grad():
        simple.weight.copy_(Spectrum(subject, "blocks.0.ffn.up").nearest(2))
    record = factored(subject, kept=0.5)
    ranks = {row["name"]: row["rank"] for row in subject.details["layers"]}
    assert ranks["blocks.0.ffn.up"] < ranks["blocks.1.ffn.up"]
    level, message = record.events[-1]
    assert level == "info"
    assert "better than equal shares" in message
    assert isinstance(subject.model.blocks[0].ffn.up, LowRankLinear)


def test_weights_on_trial_are_gone_afterwards():
    subject = subject_of("builtin vit", depth=2)
    before = copy.deepcopy(subject.model.state_dict())
    parameters = dict(subject.model.named_parameters())
    with trial_weights(subject.model, {"head": torch.zeros(10, 32)}):
        assert not subject.model.head.weight.any()
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.model.state_dict().items())
    assert dict(subject.model.named_parameters()).items() == parameters.items()


def test_one_rank_for_all_leaves_nothing_to_measure():
    with pytest.raises(SpecError, match="nothing to measure"):
        Svd(rank=3, ranks="measured").check(subject_of("builtin vit", depth=2))


def test_the_label_says_that_ranks_are_measured():
    assert Svd(kept=0.4, ranks="measured").label() == "40 % measured"
