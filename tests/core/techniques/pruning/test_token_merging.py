"""ToMe on whole models: fewer tokens, the same answers where nothing is lost, exact reload."""

import pytest
import torch

from core import artifact, models, tasks
from core.errors import SpecError
from core.measure.compute import macs
from core.spec import ModelSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.catalogue import TECHNIQUES
from tests.core.fakes import context
from tests.core.techniques.pruning.conftest import SOURCES, images


@pytest.mark.parametrize("source", SOURCES)
def test_merging_equal_tokens_changes_no_answer(vision_subject, source):
    subject, _ = vision_subject(source)
    batch = {"pixel_values": torch.zeros_like(images(subject)["pixel_values"])}
    for name, parameter in subject.model.named_parameters():
        if "position_embedding" in name:
            parameter.data[:] = parameter.data[:, -1:]  # every patch the same token, and so are its keys
    with torch.no_grad():
        expected = logits_of(subject.model, batch)
        TECHNIQUES["token_merging"](merged=5).apply(subject, context(subject))
        torch.testing.assert_close(logits_of(subject.model, batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_merging_saves_work_and_reloads_exactly(vision_subject, source, tmp_path):
    subject, loaded = vision_subject(source)
    batch = images(subject)
    before = macs(subject.model, batch)
    TECHNIQUES["token_merging"](merged=4).apply(subject, context(subject))
    assert macs(subject.model, batch) < before
    tokens = [row["tokens out"] for row in subject.details["layers"]]
    assert tokens[0] == subject.details["layers"][0]["tokens in"] - 4
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        assert torch.equal(logits_of(again, batch), logits_of(subject.model, batch))


def test_what_is_no_vision_transformer_is_refused():
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:digits"}))
    loaded = models.load(ModelSpec(source="builtin:resnet"), task, torch.Generator().manual_seed(0))
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    with pytest.raises(SpecError, match="Vision Transformer"):
        TECHNIQUES["token_merging"]().check(subject)
