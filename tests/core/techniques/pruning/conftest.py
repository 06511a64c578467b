"""Small Vision Transformers, ours and Hugging Face's, on real images, and other families' checkpoints."""

import pytest
import torch

from core import models, tasks
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from tests.core.models.conftest import checkpoint, data_folder  # noqa: F401  fixtures

SOURCES = ["builtin cls", "builtin mean", "vit", "deit"]


@pytest.fixture
def vision_subject(request):
    def subject(source: str) -> tuple[Subject, models.Loaded]:
        task = tasks.load(TaskSpec(source="builtin:digits"))
        if source.startswith("builtin"):
            pooling = source.split()[1]
            settings = {"source": "builtin:vit", "dim": 32, "depth": 3, "heads": 2, "patch": 2, "pooling": pooling}
        else:
            _, folder = request.getfixturevalue("checkpoint")(source)
            settings = {"source": f"hf:{folder}"}
        loaded = models.load(ModelSpec.model_validate(settings), task, torch.Generator().manual_seed(0))
        task.prepare(loaded.input_format)
        return Subject({"main": loaded.module}, task, {"main": loaded.config}, trained=True), loaded

    return subject


def images(subject: Subject, n: int = 6) -> dict[str, torch.Tensor]:
    return {"pixel_values": subject.task.split("test").batch(torch.arange(n))["pixel_values"]}
