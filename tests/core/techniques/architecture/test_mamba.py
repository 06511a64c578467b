"""Mamba as a step: in the place of whole blocks, or of attentions. The rest is in test_recurrent.py."""

import pytest
from torch import nn

from core.nn.ffn.mlp import Mlp
from core.nn.mamba import Mamba, MambaBlock
from core.nn.transformer import TransformerBlock
from core.techniques.architecture.mamba import MambaStep
from core.training.loop import Training
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of
from tests.core.training.test_loop import plan


def swapped(**settings):
    subject, _ = subject_of()
    MambaStep(**settings).apply(subject, context(subject))
    return subject


def test_two_mambas_take_a_blocks_place_and_keep_its_norms():
    subject, _ = subject_of()
    norms = [(block.norm1, block.norm2) for block in subject.model.blocks]
    MambaStep(n_states=4).apply(subject, context(subject))
    blocks = subject.model.blocks
    assert all(type(block) is MambaBlock and (block.norm1, block.norm2) == norms[i] for i, block in enumerate(blocks))
    row = {"channels": 64, "states": 4, "state (bytes)": 2 * 4 * 64 * (4 + 3)}
    assert subject.details["layers"] == [{"name": f"blocks.{i}", **row} for i in range(2)]
    assert not any(isinstance(m, Mlp) for m in subject.model.modules())


def test_an_attentions_place_leaves_the_feed_forward_network():
    subject = swapped(replaces="attention")
    assert all(
        type(b) is TransformerBlock and type(b.attention) is Mamba and type(b.ffn) is Mlp for b in subject.model.blocks
    )
    row = {"channels": 64, "states": 16, "state (bytes)": 4 * 64 * (16 + 3)}
    assert subject.details["layers"] == [{"name": f"blocks.{i}.attention", **row} for i in range(2)]


@pytest.mark.parametrize(("settings", "n_mambas"), [({}, 4), ({"replaces": "attention"}, 2)])
def test_what_goes_into_the_stream_is_scaled_by_the_number_of_mambas(settings, n_mambas):
    mambas = [m for m in swapped(**settings).model.modules() if isinstance(m, Mamba)]
    assert len(mambas) == n_mambas
    for mamba in mambas:
        bound = (64 * n_mambas) ** -0.5
        assert 0.98 * bound < mamba.out_proj.weight.abs().max() <= bound


def test_decays_and_skips_are_not_decayed_by_the_optimizer():
    subject = swapped()
    training = Training(subject, context(subject), plan(steps=1, batch_size=2), [])
    decayed = {id(p) for group in training.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    scan = subject.model.blocks[0].mamba1.scan
    assert not {id(p) for p in scan.parameters()} & decayed and len(list(scan.parameters())) == 3
    assert id(subject.model.blocks[0].mamba1.in_proj.weight) in decayed
    assert isinstance(subject.model.blocks[0].mamba1.conv, nn.Conv1d)


def test_label_tells_what_is_swapped():
    assert MambaStep().label() == "blocks, 16 states"
    assert MambaStep(replaces="attention", n_states=8).label() == "attentions, 8 states"
