"""DynamicViT on whole models: masks in training, fewer tokens in evaluation, exact reload."""

import pytest
import torch

from core import artifact
from core.errors import SpecError
from core.measure.compute import macs
from core.recording import MemoryRecord
from core.tasks.base import logits_of
from core.techniques.catalogue import TECHNIQUES
from core.training import Training
from tests.core.fakes import context
from tests.core.techniques.pruning.conftest import SOURCES, images
from tests.core.test_training import plan


@pytest.mark.parametrize("source", SOURCES)
def test_dynamic_vit_trains_with_masks_and_evaluates_with_fewer_tokens(vision_subject, source, tmp_path):
    subject, loaded = vision_subject(source)
    batch = images(subject)
    before = macs(subject.model, batch)
    method = TECHNIQUES["dynamic_vit"](keep=0.5, stages=1)
    record = MemoryRecord()
    Training(subject, context(subject, record), plan(steps=3, batch_size=16), [method]).run()
    assert {
        "0/kept tokens, target 0.50",
        "0/distillation of logits",
        "0/distillation of tokens",
    } <= record.curves.keys()
    assert macs(subject.model, batch) < before
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        assert torch.equal(logits_of(again, batch), logits_of(subject.model, batch))


def test_more_stages_than_blocks_are_refused(vision_subject):
    subject, _ = vision_subject("builtin cls")
    with pytest.raises(SpecError, match="at most 2"):
        TECHNIQUES["dynamic_vit"](stages=3).check(subject)
