"""FFN pruning: idle units go first, widths are rounded, the scope and the skipped blocks are kept to."""

import pytest
import torch

from core import models, tasks
from core.artifacts import artifact
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.nn.low_rank_linear import LowRankLinear
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.techniques.pruning.ffn_pruning import FfnPruning
from core.techniques.pruning.head_pruning import HeadPruning
from tests.core.algorithms.structured.families import TRANSFORMERS, answers, subject_of
from tests.core.fakes import context


def widths(subject):
    return [subject.model.get_parameter(f"{b.down}.weight").shape[1] for b in anatomy(subject.model).blocks]


def idle(subject, block, units):
    """Take from these units what they give on and (for the norms of weights) nearly all that they read."""
    parts = anatomy(subject.model).blocks[block]
    with torch.no_grad():
        subject.model.get_parameter(f"{parts.down}.weight")[:, units] = 0
        for name in (parts.gate, parts.up):
            if name is not None:
                for parameter in subject.model.get_submodule(name).parameters():
                    parameter[units] *= 0.01


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("importance", ["first_order", "mixed", "l2", "taylor"])
def test_units_that_give_nothing_go_first(family, importance):
    subject = subject_of(family)
    units = torch.randperm(48, generator=torch.Generator().manual_seed(2))
    idle(subject, 0, units[:24])
    idle(subject, 1, units[24:])
    expected = answers(subject)
    FfnPruning(pruning_ratio=0.5, importance=importance).apply(subject, context(subject))
    assert widths(subject) == [24, 24]
    torch.testing.assert_close(answers(subject), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    rows = subject.details["layers"]
    assert [(row["before"], row["after"]) for row in rows] == [(48, 24), (48, 24)]
    assert all(row["importance kept (%)"] > 95 for row in rows)


def test_over_the_whole_model_an_idle_layer_gives_most():
    subject = subject_of("vit")
    idle(subject, 1, torch.arange(40))
    FfnPruning(pruning_ratio=40 / 96, scope="global", importance="taylor").apply(subject, context(subject))
    assert widths(subject) == [48, 8]


@pytest.mark.parametrize(("ratio", "round_to", "width"), [(0.3, 8, 32), (0.3, 1, 34), (0.9, 8, 8), (0.9, 1, 5)])
def test_widths_are_multiples(ratio, round_to, width):
    subject = subject_of("vit")
    FfnPruning(pruning_ratio=ratio, round_to=round_to, importance="random").apply(subject, context(subject))
    assert widths(subject) == [width, width]


def test_blocks_at_the_ends_can_stay_whole():
    for settings, expected in (({"skip_first": 1}, [48, 24]), ({"skip_last": 1}, [24, 48])):
        subject = subject_of("vit")
        FfnPruning(pruning_ratio=0.5, importance="l2", **settings).apply(subject, context(subject))
        assert widths(subject) == expected
    with pytest.raises(SpecError, match="skip_last = 2: leaves no block to prune"):
        FfnPruning(skip_last=2).check(subject_of("vit"))


def test_ratios_that_take_nothing_are_refused():
    with pytest.raises(SpecError, match=r"pruning_ratio = 0.05: removes nothing from widths of 48 rounded to 8"):
        FfnPruning(pruning_ratio=0.05).check(subject_of("vit"))
    FfnPruning(pruning_ratio=0.05, round_to=1).check(subject_of("vit"))


def test_factored_layers_are_refused():
    subject = subject_of("vit")
    layer = LowRankLinear.from_linear(subject.model.blocks[0].ffn.up, 4)
    subject.replace("blocks.0.ffn.up", layer)
    with pytest.raises(SpecError, match="is a LowRankLinear"):
        FfnPruning().check(subject)


def test_masks_of_earlier_steps_go_on_being_kept(tmp_path):
    task = tasks.load(TaskSpec(source="builtin:digits"))
    spec = ModelSpec.model_validate({"source": "builtin:vit", "dim": 16, "depth": 2, "heads": 2})
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    for block in (0, 1):
        for name, shape in (("up", (64, 16)), ("down", (16, 64))):
            mask = torch.rand(shape, generator=torch.Generator().manual_seed(block)) > 0.5
            subject.constrain(f"blocks.{block}.ffn.{name}.weight", mask=mask)
    FfnPruning(pruning_ratio=0.5, calibration_examples=8).apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_subject(tmp_path, task, torch.device("cpu"))
    for fqn, constraint in again.constraints.items():
        weight = again.model.get_parameter(fqn.removeprefix("main."))
        assert weight.shape == constraint.tensor.shape and 32 in weight.shape
        assert (weight[~constraint.tensor.bool()] == 0).all()


def test_a_model_with_one_linear_for_queries_keys_and_values_can_be_pruned_here():
    subject = subject_of("hf gpt2")
    units = torch.randperm(128, generator=torch.Generator().manual_seed(2))[:64]
    idle(subject, 0, units)
    idle(subject, 1, units)
    expected = answers(subject)
    FfnPruning(pruning_ratio=0.5).apply(subject, context(subject))
    assert widths(subject) == [64, 64]
    torch.testing.assert_close(answers(subject), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    with pytest.raises(SpecError, match="one linear layer for q, k and v"):
        HeadPruning().check(subject)
