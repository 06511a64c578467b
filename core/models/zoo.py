"""The built-in models: small, readable, trained from scratch."""

from typing import Any

import torch
from torch import nn

from core.models.encoder import Encoder, EncoderSettings
from core.models.gpt import Gpt, GptSettings
from core.models.resnet import Resnet, ResnetSettings
from core.models.vit import Vit, VitSettings
from core.tasks.base import InputFormat, Kind, Task

BuiltinSettings = VitSettings | GptSettings | EncoderSettings | ResnetSettings

SETTINGS: dict[str, type[BuiltinSettings]] = {
    "builtin:vit": VitSettings,
    "builtin:gpt": GptSettings,
    "builtin:encoder": EncoderSettings,
    "builtin:resnet": ResnetSettings,
}
MODULES: dict[str, type[nn.Module]] = {
    "builtin:vit": Vit,
    "builtin:gpt": Gpt,
    "builtin:encoder": Encoder,
    "builtin:resnet": Resnet,
}
KINDS: dict[str, Kind] = {
    "builtin:vit": Kind.IMAGE_CLASSIFICATION,
    "builtin:gpt": Kind.LANGUAGE_MODELLING,
    "builtin:encoder": Kind.TEXT_CLASSIFICATION,
    "builtin:resnet": Kind.IMAGE_CLASSIFICATION,
}


def resolve(source: str, settings: BuiltinSettings, task: Task) -> tuple[dict[str, Any], InputFormat]:
    """What `build` makes the model from, and how it wants its inputs."""
    config, input_format = settings.resolve(task)
    return {"source": source, **config}, input_format


def build(config: dict[str, Any]) -> nn.Module:
    """The bare model of a resolved config; its weights are whatever construction leaves."""
    arguments = {key: value for key, value in config.items() if key != "source"}
    return MODULES[config["source"]](**arguments)


def initialized(config: dict[str, Any], generator: torch.Generator | None) -> nn.Module:
    """The model with fresh weights that depend on `generator` alone."""
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation is overwritten
        model = build(config)
    model.initialize_(generator)  # type: ignore[operator]
    return model
