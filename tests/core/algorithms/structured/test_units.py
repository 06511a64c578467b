"""Coupled units: a network without some of them computes what the whole one does with them switched off."""

import copy

import pytest
import torch

from core.algorithms.structured.units import channel_units, ffn_units, head_units, keep_, parameters, places
from core.errors import SpecError
from core.measure.compute import count
from core.models.anatomy import anatomy
from core.nn.low_rank_linear import LowRankLinear
from tests.core.algorithms.structured.families import TRANSFORMERS, answers, subject_of, switch_off_
from tests.core.models.conftest import configs


def units_of(subject, kind):
    model = subject.model
    if kind == "channels":
        return channel_units(model)
    known = anatomy(model)
    if kind == "heads":
        return [head_units(model, known, block) for block in known.blocks]
    return [ffn_units(model, block) for block in known.blocks]


CASES = [(family, kind) for family in TRANSFORMERS for kind in ("heads", "units")] + [("resnet", "channels")]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_cut_network_is_the_whole_one_with_the_units_switched_off(family, kind):
    subject = subject_of(family)
    dense, whole = answers(subject), copy.deepcopy(subject)
    generator = torch.Generator().manual_seed(3)
    for index, group in enumerate(units_of(subject, kind)):
        n_kept = 1 if index == 0 else max(1, group.count // 2)
        order = torch.randperm(group.count, generator=generator)
        switch_off_(whole, group.gate, places(order[n_kept:], group.width))
        keep_(subject, group, order[:n_kept])
    expected = answers(whole)
    scale = float(expected.abs().max())
    assert float((answers(subject) - expected).abs().max()) < 1e-5 * scale
    assert float((dense - expected).abs().max()) > 1e-2 * scale


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_parameters_and_operations_are_those_of_the_smaller_layers(family, kind):
    subject = subject_of(family)
    batch = subject.task.batch(torch.arange(1))
    before = count(subject.model, batch)
    units = units_of(subject, kind)
    owned = sum(p.numel() for p in parameters(units, subject.model).values())
    kept = {group.gate: max(1, group.count // 2) for group in units}
    for group in units:
        keep_(subject, group, torch.arange(kept[group.gate]))
    after = count(subject.model, batch)
    left = sum(p.numel() for p in parameters(units_of(subject, kind), subject.model).values())
    assert left < 0.6 * owned
    assert before.parameters - after.parameters == owned - left
    rows = subject.model.get_submodule(units[0].gate)
    assert after.macs < before.macs and rows.weight.shape[1] == kept[units[0].gate] * units[0].width


def test_grouped_queries_are_one_unit_with_their_keys():
    subject = subject_of("hf llama")  # 4 heads, 2 of keys, 8 wide
    group = units_of(subject, "heads")[0]
    assert (group.count, group.per_unit, group.width) == (2, 2, 16)
    assert {(part.parameter.split(".")[-2], part.dim, part.width) for part in group.slices} == {
        ("q_proj", 0, 16),
        ("k_proj", 0, 8),
        ("v_proj", 0, 8),
        ("o_proj", 1, 16),
    }


def test_masks_are_cut_along():
    subject = subject_of("vit")
    mask = torch.rand(32, 48, generator=torch.Generator().manual_seed(0)) > 0.5
    subject.constrain("blocks.0.ffn.down.weight", mask=mask)
    keep_(subject, units_of(subject, "units")[0], torch.tensor([40, 3]))
    assert torch.equal(subject.mask("blocks.0.ffn.down.weight"), mask[:, [40, 3]])
    assert (subject.model.blocks[0].ffn.down.weight[~mask[:, [40, 3]]] == 0).all()


def test_layers_that_are_not_plain_are_refused():
    subject = subject_of("vit")
    linear = subject.model.blocks[1].ffn.down
    subject.replace("blocks.1.ffn.down", LowRankLinear.from_linear(linear, 4))
    with pytest.raises(SpecError, match=r"blocks\.1\.ffn\.down.*is a LowRankLinear, which cannot be pruned"):
        units_of(subject, "units")


def test_one_linear_for_queries_keys_and_values_is_refused():
    import transformers

    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(configs()["gpt2"])
    from core.models.conv1d import convert_conv1d_

    convert_conv1d_(model)
    known = anatomy(model)
    with pytest.raises(SpecError, match="one linear layer for q, k and v"):
        head_units(model, known, known.blocks[0])
    assert ffn_units(model, known.blocks[0]).count == 128
