"""DynamicViT on whole models: masks in training, fewer tokens in evaluation, exact reload."""

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure.compute import count_macs
from core.nn.tokens.selecting import SelectingBlock
from core.tasks.base import logits_of
from core.techniques.catalogue import TECHNIQUES
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import context, taken_up
from tests.core.techniques.pruning.conftest import SOURCES, images
from tests.core.training.test_loop import plan


@pytest.mark.parametrize("source", SOURCES)
def test_dynamic_vit_trains_with_masks_and_evaluates_with_fewer_tokens(vision_subject, source, tmp_path):
    subject, loaded = vision_subject(source)
    batch = images(subject)
    before = count_macs(subject.model, batch)
    method = TECHNIQUES["dynamic_vit"](keep=0.5, stages=1)
    record = MemoryRecord()
    Training(subject, context(subject, record), plan(steps=3, batch_size=16), [method]).run()
    assert {
        "0/kept tokens, target 0.50",
        "0/distillation of logits",
        "0/distillation of tokens",
    } <= record.curves.keys()
    assert count_macs(subject.model, batch) < before
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        assert torch.equal(logits_of(again, batch), logits_of(subject.model, batch))


def test_a_training_taken_up_from_its_checkpoint_ends_the_same(vision_subject, tmp_path):
    """Predictors, noise and all; the model that it is tied to is the one from before the training."""
    train = Train(
        steps=8, batch_size=8, evaluations=0, methods=[{"dynamic_vit": {"keep": 0.5, "stages": 1, "distillation": 1.0}}]
    )
    (whole, record), (resumed, again) = taken_up(train, lambda seed=0: vision_subject("builtin cls")[0], tmp_path, at=4)
    expected = whole.model.state_dict()
    assert any(".predictor." in name for name in expected)
    for name, found in resumed.model.state_dict().items():
        assert torch.equal(found, expected[name]), name
    for curve in ("0/distillation of tokens", "0/distillation of logits", "0/kept tokens, target 0.50"):
        first = again.curves[curve][0][0]
        assert again.curves[curve] == [point for point in record.curves[curve] if point[0] >= first], curve
        assert 0 < len(again.curves[curve]) < len(record.curves[curve])


def test_more_stages_than_blocks_are_refused(vision_subject):
    subject, _ = vision_subject("builtin cls")
    with pytest.raises(SpecError, match="at most 2"):
        TECHNIQUES["dynamic_vit"](stages=3).check(subject)


@pytest.mark.parametrize("source", ["builtin cls", "deit"])
def test_every_stage_leaves_its_share_of_all_patches(vision_subject, source):
    subject, _ = vision_subject(source)
    method, stages = TECHNIQUES["dynamic_vit"](keep=0.5, stages=1 if source == "deit" else 2), {}
    method.begin(subject, context(subject))
    batch = images(subject)
    hooks = {n: m for n, m in subject.model.named_modules() if isinstance(m, SelectingBlock)}
    for name, block in hooks.items():
        block.register_forward_hook(lambda _, __, output, name=name: stages.update({name: output.shape[1]}))
    with torch.no_grad():
        logits_of(subject.model.eval(), batch)
    special = 2 if source == "deit" else 1
    expected = [16 + special, 8 + special] if source == "deit" else [16 + special, 8 + special, 4 + special]
    assert list(stages.values()) == expected == [row["tokens"] for row in subject.details["layers"]]


def test_only_the_tokens_that_are_left_are_tied_to_the_teacher(vision_subject):
    subject, _ = vision_subject("builtin cls")
    method = TECHNIQUES["dynamic_vit"](keep=0.5, stages=1)
    method.begin(subject, context(subject))
    batch = images(subject)
    logits = logits_of(subject.model.train(), batch)
    kept = subject.model.blocks[-1].kept.bool()
    method.losses(batch, logits, {"norm": torch.zeros(*kept.shape, 32)})
    teacher = method._teacher_tokens
    spoilt = torch.where(kept[..., None], teacher, teacher.flip(-1))
    assert method.losses(batch, logits, {"norm": spoilt}).terms["distillation of tokens"].abs() < 1e-6
    assert method.losses(batch, logits, {"norm": teacher.flip(-1)}).terms["distillation of tokens"] > 1e-3
