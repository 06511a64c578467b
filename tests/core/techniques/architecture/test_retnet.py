"""RetNet as a step: what it takes over, what it draws, and what it refuses. The rest is in test_recurrent.py."""

import pytest
import torch

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.attention.full import FullAttention
from core.nn.attention.retention import Retention
from core.techniques.architecture.retnet import Retnet
from core.techniques.pruning.head_pruning import HeadPruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.pruning.slicegpt import Slicegpt
from core.techniques.pruning.width_pruning import WidthPruning
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import cut_all_heads_, subject_of


def swapped(subject, **settings):
    Retnet(**settings).apply(subject, context(subject))
    return [m for m in subject.model.modules() if isinstance(m, Retention)]


@pytest.mark.parametrize("factor", [1, 2])
def test_every_attention_is_swapped_and_reported(factor):
    subject, _ = subject_of()
    before = [m for m in subject.model.modules() if type(m) is FullAttention]
    after = swapped(subject, value_factor=factor)
    assert len(after) == len(before) == 2
    for old, new in zip(before, after, strict=True):
        kept = [name for name in "qkvo" if getattr(new, name) is getattr(old, name)]
        assert kept == (list("qkvo") if factor == 1 else ["q", "k"])
    row = {"heads": 4, "fastest decay": 0.96875, "slowest decay": 1 - 2**-8, "state (bytes)": 4 * 4 * 8 * 8 * factor}
    assert subject.details["layers"] == [{"name": f"blocks.{i}.attention", **row} for i in range(2)]


@pytest.mark.parametrize("factor", [1, 2])
def test_a_trained_model_is_told_to_train_on(factor):
    subject, _ = subject_of()
    record = MemoryRecord()
    Retnet(value_factor=factor).apply(subject, context(subject, record))
    assert not record.events
    subject, _ = subject_of()
    subject.trained = True
    Retnet(value_factor=factor).apply(subject, context(subject, record))
    assert [level for level, _ in record.events] == ["warning"]
    assert not subject.trained


def test_the_papers_model_has_the_parameters_of_a_transformer():
    subject, _ = subject_of(ffn_ratio=4.0, positions="rotary")
    dense = sum(p.numel() for p in subject.model.blocks.parameters() if p.dim() == 2)
    subject, _ = subject_of(ffn_ratio=2.0, positions="rotary")
    swapped(subject, value_factor=2)
    assert sum(p.numel() for p in subject.model.blocks.parameters() if p.dim() == 2) == dense


def test_masks_survive_where_the_weights_do_and_are_refused_where_they_do_not():
    subject, _ = subject_of()
    NmPruning().apply(subject, context(subject))
    masks = dict(subject.constraints)
    with pytest.raises(SpecError, match=r"value_factor = 2: needs new value and output weights, but those of blocks.0"):
        Retnet(value_factor=2).check(subject)
    swapped(subject)
    assert subject.constraints.keys() == masks.keys()
    assert not subject.model.blocks[1].attention.v.weight[~masks["main.blocks.1.attention.v.weight"].tensor].any()


@pytest.mark.parametrize("later", [HeadPruning(), WidthPruning(), Slicegpt()])
def test_steps_that_would_have_to_cut_the_gate_along_are_refused(later):
    subject, _ = subject_of()
    swapped(subject)
    with pytest.raises(SpecError, match=r"its (heads|blocks' parts) are not known to Slimboard"):
        later.check(subject)


def test_heads_of_odd_width_are_refused():
    subject, _ = subject_of(dim=36, heads=4)
    with pytest.raises(SpecError, match=r"model.heads = 4: makes heads of width 9"):
        Retnet().check(subject)


def test_generated_gates_follow_the_step_alone():
    first, second = (swapped(subject_of()[0])[0].gate.weight for _ in range(2))
    assert torch.equal(first, second)


def test_label_names_wide_values():
    assert Retnet().label() == "" and Retnet(value_factor=2).label() == "values × 2"


def test_layers_without_heads_are_refused():
    subject, _ = subject_of()
    cut_all_heads_(subject, "blocks.1.attention")
    with pytest.raises(SpecError, match=r"blocks\.1\.attention': has no heads left"):
        Retnet().check(subject)
