"""Width pruning: heads and units together, channels of residual networks, widths that differ from block to block."""

import pytest
import torch

from core import models, tasks
from core.algorithms.structured.stream import stream_units
from core.algorithms.structured.units import channel_units
from core.artifacts import artifact
from core.errors import SpecError
from core.measure.compute import count
from core.models.anatomy import anatomy, heads_of
from core.models.meta import tied_parameters
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.techniques.pruning.width_pruning import WidthPruning
from core.techniques.training.train import Train
from tests.core.algorithms.structured.families import TRANSFORMERS, answers, subject_of
from tests.core.fakes import context

DIGITS, TIED = {"source": "builtin:digits"}, ["head.weight", "embedding.weight"]


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
    attention, feed = subject.details["layers"][:2]
    assert [(row["kind"], row["before"], row["after"]) for row in (attention, feed)] == [
        ("heads", 4, 2),
        ("units", 48, 24),
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
    with pytest.raises(SpecError, match="blocks' parts are not known"):
        WidthPruning().check(subject)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_idle_channels_of_the_residual_stream_go(family):
    subject = subject_of(family)
    stream = stream_units(subject.model)
    idle = torch.randperm(32, generator=torch.Generator().manual_seed(4))[:16]
    with torch.no_grad():
        for part in stream.slices:
            subject.model.get_parameter(part.parameter).index_fill_(part.dim, idle, 1e-3)
    WidthPruning(pruning_ratio=0.5, residual_ratio=0.5, importance="mixed").apply(subject, context(subject))
    assert stream_units(subject.model).count == 16 and sizes(subject)[0][2] == 24
    row = subject.details["layers"][-1]
    assert (row["name"], row["before"], row["after"]) == ("residual stream", 32, 16)
    assert row["importance kept (%)"] > 98
    assert torch.isfinite(answers(subject)).all()


def test_a_stream_is_scored_by_its_weights_only():
    with pytest.raises(SpecError, match="importance = 'taylor': needs one gate"):
        WidthPruning(residual_ratio=0.25, importance="taylor").check(subject_of("vit"))
    with pytest.raises(SpecError, match=r"residual_ratio = 0.25: is only supported for Transformers"):
        WidthPruning(residual_ratio=0.25).check(subject_of("resnet"))


@pytest.mark.parametrize("source", ["builtin:vit", "builtin:gpt"])
def test_an_artifact_of_a_narrower_network_reloads_and_can_be_worked_on(source, tmp_path):
    language = source == "builtin:gpt"
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:python-docs", "length": 16} if language else DIGITS))
    spec = ModelSpec.model_validate({"source": source, "dim": 32, "depth": 2, "heads": 4})
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    settings = {"pruning_ratio": 0.5, "residual_ratio": 0.25, "calibration_examples": 4}
    WidthPruning(**settings).apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_subject(tmp_path, task, torch.device("cpu"))
    assert tied_parameters(again.model) == tied_parameters(subject.model) == ([TIED] if language else [])
    assert sizes(again) == [(2, 2, 64)] * 2 and stream_units(again.model).count == 24
    Train(steps=2, evaluations=0, batch_size=4).apply(again, context(again))
    WidthPruning(**settings).apply(again, context(again))
    assert sizes(again) == [(1, 1, 32)] * 2 and stream_units(again.model).count == 16
