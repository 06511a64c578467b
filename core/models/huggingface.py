"""`hf:<repo or folder>`: placeholder until the loader stands."""

from typing import Any

import torch
from torch import nn

from core.models.base import ModelSettings
from core.models.loaded import Described, Loaded
from core.tasks.base import Task


class HuggingFaceSettings(ModelSettings):
    """A model of a Hugging Face repository or folder, with its trained weights."""


def describe(source: str, settings: HuggingFaceSettings, task: Task) -> Described:
    raise NotImplementedError


def load(source: str, settings: HuggingFaceSettings, task: Task, generator: torch.Generator) -> Loaded:
    raise NotImplementedError


def build(config: dict[str, Any]) -> nn.Module:
    raise NotImplementedError
