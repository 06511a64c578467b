"""Models with new weights: the built-in ones, small and readable, and those of other packages."""

from typing import Any

import torch
from torch import nn

from core.models.base import Architecture
from core.models.encoder import EncoderSettings
from core.models.gpt import GptSettings
from core.models.resnet import ResnetSettings
from core.models.vit import VitSettings
from core.plugins import load_plugins
from core.tasks.base import InputFormat, Task

ZOO: dict[str, type[Architecture]] = {
    "builtin:vit": VitSettings,
    "builtin:gpt": GptSettings,
    "builtin:encoder": EncoderSettings,
    "builtin:resnet": ResnetSettings,
}


def architectures() -> dict[str, type[Architecture]]:
    """Every architecture of this installation by its source's name; the built-in ones cannot be replaced."""
    return load_plugins("models", Architecture) | ZOO


def resolve(source: str, settings: Architecture, task: Task) -> tuple[dict[str, Any], InputFormat]:
    """The arguments of `build`, and the model's input format."""
    config, input_format = settings.resolve(task)
    return {"source": source, **config}, input_format


def build(config: dict[str, Any]) -> nn.Module:
    """The bare model of a resolved config; its weights are uninitialized.

    Raises ValueError if the config's source is from a package that is not installed.
    """
    arguments = {key: value for key, value in config.items() if key != "source"}
    source = config["source"]
    architecture = ZOO.get(source) or architectures().get(source)
    if architecture is None:
        raise ValueError(f"{source} is a model of a package that is not installed on this worker")
    return architecture.module(**arguments)


def initialized(config: dict[str, Any], generator: torch.Generator | None) -> nn.Module:
    """The model with new weights that depend only on `generator`."""
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation is overwritten
        model = build(config)
    model.initialize_(generator)  # type: ignore[operator]
    return model
