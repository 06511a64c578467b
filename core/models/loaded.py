"""Results of loading a model."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from core.models.stored import StoredWeights
from core.tasks.base import InputFormat


@dataclass(frozen=True)
class Described:
    """A model before any weight is read: everything that its source and the task determine."""

    config: dict[str, Any]  # plain JSON; `core.models.build` makes the bare model from it
    input_format: InputFormat
    trained: bool
    tokenizer_files: dict[str, bytes] = field(default_factory=dict)  # by name; saved beside the weights
    class_order: tuple[int, ...] = ()  # output of the checkpoint for each class of the task, where they are permuted
    notes: tuple[str, ...] = ()  # what the run's log should tell


@dataclass(frozen=True)
class Loaded(Described):
    """A model with its weights, in evaluation mode."""

    module: nn.Module = field(kw_only=True)
    content_hash: str = field(kw_only=True)  # of the config and of the weights that came with it
    stored: StoredWeights | None = field(default=None, kw_only=True)  # the user's own file; None: made here
