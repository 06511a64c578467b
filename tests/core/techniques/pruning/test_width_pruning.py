"""Width pruning: heads and units together, channels of residual networks, widths that differ from block to block."""

import pytest
import torch

from core.errors import SpecError
from core.measure.compute import count
from core.models.anatomy import anatomy, heads_of
from core.structured.units import channel_units
from core.techniques.pruning.width_pruning import WidthPruning
from tests.core.fakes import context
from tests.core.structured.families import TRANSFORMERS, answers, subject_of


def sizes(subject):
    known = anatomy(subject.model)
    return [
        (*heads_of(subject.model, known, b), subject.model.get_parameter(f"{b.down}.weight").shape[1])
        for b in known.blocks
    ]


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("importance", ["first_order", "taylor"])
def test_a_head_and_units_of_every_block_go(family, importance):
    subject = subject_of(family)
    whole = answers(subject)
    WidthPruning(pruning_ratio=0.5, importance=importance).apply(subject, context(subject))
    kv_heads = 1 if family in ("gpt", "hf llama") else 2
    assert sizes(subject) == [(2, kv_heads, 24)] * 2
    assert answers(subject).shape == whole.shape and torch.isfinite(answers(subject)).all()
    assert [list(row) for row in subject.details["layers"][:2]] == [
        ["name", "heads before", "heads after", "importance kept (%)"],
        ["name", "units before", "units after", "importance kept (%)"],
    ]


def test_heads_compete_with_heads_and_units_with_units():
    subject = subject_of("vit")
    with torch.no_grad():  # the last block gives nothing: all that may go goes there
        for name in ("attention.o", "ffn.down"):
            subject.model.get_parameter(f"blocks.1.{name}.weight").mul_(1e-4)
    WidthPruning(pruning_ratio=0.25, scope="global", importance="taylor").apply(subject, context(subject))
    assert sizes(subject) == [(4, 4, 48), (2, 2, 24)]


@pytest.mark.parametrize("importance", ["first_order", "mixed", "l2", "taylor"])
def test_channels_inside_residual_blocks_go(importance):
    subject = subject_of("resnet")
    groups = channel_units(subject.model)
    kept = []
    with torch.no_grad():
        for group in groups:
            idle = torch.randperm(group.count, generator=torch.Generator().manual_seed(5))[: group.count // 2]
            block = subject.model.get_submodule(group.name)
            block.conv2.weight[:, idle] = 0
            for parameter in (block.conv1.weight, block.norm1.weight, block.norm1.bias):
                parameter[idle] *= 0.01
            kept.append(group.count - len(idle))
    expected, batch = answers(subject), subject.task.batch(torch.arange(1))
    before = count(subject.model, batch)
    WidthPruning(pruning_ratio=0.5, importance=importance).apply(subject, context(subject))
    torch.testing.assert_close(answers(subject), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert [group.count for group in channel_units(subject.model)] == kept == [8, 16, 32]
    after = count(subject.model, batch)
    assert after.macs < 0.6 * before.macs and after.parameters < 0.6 * before.parameters


def test_a_model_of_unknown_parts_is_refused():
    subject = subject_of("vit")
    subject.models["main"] = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(SpecError, match="blocks are not known"):
        WidthPruning().check(subject)
