"""Sources of models: the zoo and plug-ins, Hugging Face repositories and folders, earlier runs.

`describe` reads no weights, `load` does, `build` creates the bare model of a config from `load`.
"""

import difflib
import hashlib
import json
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from core.errors import SpecError
from core.models import huggingface, zoo
from core.models.base import Architecture, ModelSettings
from core.models.catalogue import entry_of, sources
from core.models.loaded import Described, Loaded
from core.spec.model import ModelSpec
from core.spec.pydantic_errors import list_problems
from core.tasks.base import Kind, Task

__all__ = ["Described", "Loaded", "build", "describe", "load", "longest"]


def describe(spec: ModelSpec, task: Task) -> Described:
    """The model's resolved config and input format; raises SpecError if the source is incompatible with the task."""
    settings = _settings(spec)
    if isinstance(settings, huggingface.HuggingFaceSettings):
        return huggingface.describe(spec.source, settings, task)
    assert isinstance(settings, Architecture)
    _require_kind(spec.source, settings, task)
    config, input_format = zoo.resolve(spec.source, settings, task)
    return Described(config=config, input_format=input_format, trained=False)


def load(spec: ModelSpec, task: Task, generator: torch.Generator) -> Loaded:
    """The model with its weights, on the CPU; new weights depend only on `generator`.

    `run:` and `stage:` references are resolved by the pipeline and rejected here.
    """
    settings = _settings(spec)
    if isinstance(settings, huggingface.HuggingFaceSettings):
        return huggingface.load(spec.source, settings, task, generator)
    described = describe(spec, task)
    return Loaded(
        config=described.config,
        input_format=described.input_format,
        trained=False,
        module=zoo.initialized(described.config, generator).eval(),
        content_hash=hashlib.sha256(json.dumps(described.config, sort_keys=True).encode()).hexdigest(),
    )


def build(config: dict[str, Any]) -> nn.Module:
    """The bare model of a resolved config, in evaluation mode; its weights are uninitialized."""
    if config["source"] == "hf":
        return huggingface.build(config).eval()
    return zoo.build(config).eval()


def longest(config: dict[str, Any]) -> int | None:
    """Maximum number of tokens of a resolved config's model; None if it has no limit or reads no tokens."""
    if config["source"] == "hf":
        return huggingface.longest(config)
    return None if config.get("positions") in ("rotary", "none") else config.get("length")


def _settings(spec: ModelSpec) -> ModelSettings:
    entry = entry_of(spec.source)
    if entry is None or entry == "run":
        known = zoo.architectures()
        near = difflib.get_close_matches(spec.source, known, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(known)}, or hf:<repo or folder>."
        raise SpecError.of("model.source", spec.source, "is not a known model source", remedy)
    settings = sources()[entry]
    try:
        return settings(**spec.settings)
    except ValidationError as error:
        raise SpecError(list_problems(error, whole="model", inside="model", settings=settings.model_fields)) from error


def _require_kind(source: str, settings: Architecture, task: Task) -> None:
    if settings.kind is task.kind:
        return
    fitting = [name for name, known in zoo.architectures().items() if known.kind is task.kind]
    message = f"is for {Kind(settings.kind)}, but {task.name} is {Kind(task.kind)}"
    raise SpecError.of("model.source", source, message, f"Choose one of {', '.join(fitting)}, or hf:<repo or folder>.")
