"""A small language model and its task, for steps that swap parts of it."""

import torch

from core import models, tasks
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import Task

SMALL = {"source": "builtin:gpt", "dim": 32, "depth": 2, "heads": 4, "length": 32}


PREPARED: dict[str, Task] = {}


def _prepared(source: str, spec: ModelSpec) -> Task:
    if source not in PREPARED:
        task = tasks.load(TaskSpec.model_validate({"source": source}))
        task.prepare(models.describe(spec, task).input_format)
        PREPARED[source] = task
    return PREPARED[source]


def subject_of(*, task: str = "builtin:markov", **model: object) -> tuple[Subject, models.Loaded]:
    """The subject and where it came from; the model's settings may be changed, or taken away with None."""
    settings = {key: value for key, value in {**SMALL, **model}.items() if value is not None}
    spec = ModelSpec.model_validate(settings)
    found = _prepared(task, spec)
    loaded = models.load(spec, found, torch.Generator().manual_seed(0))
    return Subject({"main": loaded.module}, found, {"main": loaded.config}), loaded


def cut_all_heads_(subject: Subject, name: str) -> None:
    """Leave the attention of this name no heads, as CoFi may."""
    none = torch.empty(0, dtype=torch.long)
    for part in "qkv":
        for tensor in ("weight", "bias"):
            subject.shrink(f"{name}.{part}.{tensor}", 0, none)
    subject.shrink(f"{name}.o.weight", 1, none)
