"""Hugging Face checkpoints whose channels were all reordered: their artifacts answer as the checkpoint did."""

import pytest
import torch

from core import models, tasks
from core.algorithms.masks import prunable_weights
from core.artifacts import artifact
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.pruning.channel_permutation import ChannelPermutation
from tests.core.fakes import context

TEXT, DIGITS = {"source": "builtin:python-docs", "length": 16}, {"source": "builtin:digits"}


@torch.no_grad()
@pytest.mark.parametrize(
    "family", ["gpt2", *(pytest.param(f, marks=pytest.mark.slow) for f in ("llama", "opt", "deit"))]
)
def test_an_artifact_answers_as_the_checkpoint_did(family, checkpoint, tmp_path):
    _, folder = checkpoint(family)
    task = tasks.load(TaskSpec.model_validate(DIGITS if family == "deit" else TEXT))
    spec = ModelSpec.model_validate({"source": f"hf:{folder}"})
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config}, trained=True)
    batch = next(context(subject).calibration(8))
    expected = logits_of(subject.model, batch)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    ChannelPermutation(strategy="greedy_swap", escapes=0, residual=True).apply(subject, context(subject))
    assert {row["part"] for row in subject.details["layers"]} == {"ffn", "values", "residual"}
    artifact.save(subject, tmp_path / "artifact", loaded)
    again = artifact.load_models(tmp_path / "artifact")["main"]
    assert torch.allclose(logits_of(again, batch), expected, atol=1e-5 * float(expected.abs().max()))
    assert not any(torch.equal(weight, before[name]) for name, weight in prunable_weights(again).items())
