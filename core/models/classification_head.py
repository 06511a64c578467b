"""The output layer of a Hugging Face classifier: matched with a task's classes, or newly created."""

from typing import Any

import torch
from torch import nn

from core.errors import SpecError
from core.models.anatomy import anatomy
from core.models.classes import ClassMatch, by_number, require_match
from core.tasks.base import Kind, Task


def fit_classes(source: str, hf_config: Any, task: Task, *, new_head: bool, by: str) -> ClassMatch:
    """The output for each class of the task; sets the task's classes, in its order, in the config.

    `by` is "name" or "number". Raises SpecError for a head that does not predict one of these classes.
    """
    if task.kind in (Kind.LANGUAGE_MODELLING, Kind.EMBEDDINGS):
        return ClassMatch()
    match = ClassMatch()
    if not new_head:
        _require_single_label(source, hf_config, task)
        outputs = [str(name) for _, name in sorted(hf_config.id2label.items())]
        match = _match(source, outputs, task, by)
    hf_config.problem_type = None
    hf_config.num_labels = task.n_classes
    if task.class_names:
        hf_config.id2label = dict(enumerate(task.class_names))
        hf_config.label2id = {name: i for i, name in enumerate(task.class_names)}
    return match


def _match(source: str, outputs: list[str], task: Task, by: str) -> ClassMatch:
    if not task.class_names:
        return ClassMatch()
    if by == "number":
        return by_number(source, outputs, task.class_names)
    remedy = (
        "Rename the data's classes, or set match_classes: number if both lists name the same classes in the same order."
    )
    return require_match(source, outputs, task.class_names, remedy)


def _require_single_label(source: str, hf_config: Any, task: Task) -> None:
    """Raise SpecError for a head that gives numbers, several labels at once, or another number of classes."""
    remedy = "Set new_head: true to train a new head, or choose a model made for these classes."
    if hf_config.problem_type == "multi_label_classification":
        message = f"has a multi-label head, but {task.name} has exactly one label per example"
    elif hf_config.problem_type == "regression" or hf_config.num_labels == 1:
        message = f"has a regression head, but {task.name} has {task.n_classes} classes"
    elif hf_config.num_labels != task.n_classes:
        message = f"has {hf_config.num_labels} classes, but {task.name} has {task.n_classes}"
    else:
        return
    raise SpecError.of("model.source", source, message, remedy)


def is_head(model: nn.Module, names: list[str]) -> bool:
    """Whether these parameters all belong to the model's output layers, or to the pooling before them."""
    heads = (*anatomy(model).outputs, "pooler")
    return all(any(head in name for head in heads) for name in names)


@torch.no_grad()
def initialize_head_(model: nn.Module, missing: list[str], generator: torch.Generator) -> None:
    """Initialize the output layer and everything else that the checkpoint lacks."""
    if not is_head(model, missing):
        raise ValueError(f"the checkpoint lacks weights besides the head: {', '.join(missing)}")
    std = getattr(model.config, "initializer_range", 0.02)
    fresh = {*missing, *(f"{name}.{kind}" for name in anatomy(model).outputs for kind in ("weight", "bias"))}
    for name, parameter in model.named_parameters():
        if name in fresh and parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        elif name in fresh:
            parameter.zero_()
