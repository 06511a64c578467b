"""The live model that a recipe changes while a run executes."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.models.resize import select_
from core.nn.integer_linear import IntegerLinear
from core.nn.precision import float_dtype
from core.nn.replacement import Replacement
from core.nn.sparse_integer_linear import without_zeros
from core.tasks.base import Task


@dataclass
class Constraint:
    """A property of one parameter that later steps keep; the only kind is "mask" (True = kept)."""

    kind: str
    tensor: Tensor


@dataclass
class Subject:
    """Named models ("main", later "draft"), their task, and the constraints that steps leave."""

    models: dict[str, nn.Module]
    task: Task
    configs: dict[str, dict[str, Any]]  # model name -> what `core.models.build` makes the bare model from
    trained: bool = False
    compressed: bool = False
    constraints: dict[str, Constraint] = field(default_factory=dict)  # "main.blocks.0.ffn.up.weight" -> ...
    details: dict[str, Any] = field(default_factory=dict)  # what the last step reports: tables by layer, notes
    trained_from: torch.dtype | None = None  # during a training: the main model's dtype before it was made float32
    sensitivity: dict[str, Any] | None = None  # the table of a sensitivity step, if that was the last step
    covered: set[str] = field(default_factory=set)  # parameters and modules of the main model that it masked or swapped

    @property
    def model(self) -> nn.Module:
        """The model that is being compressed."""
        return self.models["main"]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the main model: modules that a step adds must have the same."""
        return float_dtype(self.model)

    @property
    def saved_dtype(self) -> torch.dtype:
        """The dtype that the main model is saved in, also during a training, in which its weights are float32."""
        return self.trained_from or self.dtype

    def constrain(self, parameter: str, *, mask: Tensor) -> None:
        """Set the masked weights of a parameter of the main model to zero, now and in later steps."""
        weight = self.model.get_parameter(parameter)
        with torch.no_grad():
            weight.mul_(mask)
        self.covered.add(parameter)
        self.constraints[f"main.{parameter}"] = Constraint("mask", mask)

    def mask(self, parameter: str) -> Tensor | None:
        """The mask of a parameter of the main model, None if it has none."""
        constraint = self.constraints.get(f"main.{parameter}")
        return constraint.tensor if constraint is not None else None

    def shrink(self, parameter: str, dim: int, kept: Tensor) -> None:
        """Keep the entries `kept` (indices) along `dim` of a parameter or buffer of the main model, and of its mask."""
        select_(self.model, parameter, dim, kept)
        self.covered.add(parameter)
        mask = self.mask(parameter)
        if mask is not None:
            self.constraints[f"main.{parameter}"] = Constraint("mask", mask.index_select(dim, kept.to(mask.device)))

    def replace(self, name: str, module: Replacement) -> None:
        """Put `module` (of a class in `core.nn.catalogue`) in place of the main model's module `name`.

        Constraints on parameters that the new module lacks are dropped: it has them built in. Integer
        codes of a masked weight are stored without its zeros if this is smaller.
        """
        if isinstance(module, IntegerLinear) and self.mask(f"{name}.weight") is not None:
            module = without_zeros(module)
        module.adopt(self.model.get_submodule(name))
        self.model.set_submodule(name, module)
        self.covered.add(name)
        kept = {f"main.{_plain(fqn)}" for fqn, _ in self.model.named_parameters()}
        self.constraints = {fqn: c for fqn, c in self.constraints.items() if fqn in kept}


def _plain(fqn: str) -> str:
    """A parameter's name without the parametrization that it is trained through."""
    return fqn.replace(".parametrizations.", ".").removesuffix(".original")
