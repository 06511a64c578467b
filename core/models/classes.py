"""Matches the outputs of a classifier with the classes of a task by name, never by position alone.

A checkpoint's `id2label` and a data set may list the same classes in different orders. When a model is loaded for a
task, its outputs are put in the task's order, so that scores, losses and teachers compare the same classes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch
from torch import Tensor, nn

from core.errors import SpecError
from core.models.anatomy import anatomy
from core.tasks.base import logits_of
from core.tasks.columns import number_of

_PLACEHOLDER = re.compile(r"label[_ ]?(\d+)", re.IGNORECASE)  # what transformers calls classes without a name
_MOST_LISTED = 12


@dataclass(frozen=True)
class ClassMatch:
    """The model's output for each class of the task, and notes for the user."""

    order: tuple[int, ...] = ()  # empty: nothing to match
    note: str = ""

    @property
    def is_permuted(self) -> bool:
        """Whether the outputs must be permuted."""
        return self.order != tuple(range(len(self.order)))


def match_classes(owner: str, outputs: Sequence[str], classes: Sequence[str]) -> ClassMatch | None:
    """Match the names of a model's outputs with those of a task's classes; None if they do not match.

    Names are compared exactly, then without case, blanks, underscores and hyphens, and numbers by their value ("1.0"
    is "1"). `LABEL_<n>` on either side means number n, with a note that names `owner`.
    """
    for plain in (str, _plain):
        own, wanted = [plain(name) for name in outputs], [plain(name) for name in classes]
        if own == wanted:
            return ClassMatch(tuple(range(len(own))))
        if len(set(own)) == len(own) == len(wanted) and set(own) == set(wanted):
            return ClassMatch(tuple(own.index(name) for name in wanted))
    numbers, wanted_numbers = _placeholders(outputs), _placeholders(classes)
    if len(outputs) != len(classes) or not (numbers or wanted_numbers):
        return None
    in_order = list(range(len(classes)))
    order = [(numbers or in_order).index(number) for number in wanted_numbers or in_order]
    return by_number(owner, outputs, classes, order)


def by_number(
    owner: str, outputs: Sequence[str], classes: Sequence[str], order: Sequence[int] | None = None
) -> ClassMatch:
    """The match by number, with a note on which output is used for which class."""
    order = range(len(classes)) if order is None else order
    pairs = [f"{outputs[i]} = {name}" for i, name in zip(order, classes, strict=True)]
    return ClassMatch(tuple(order), f"{owner}: classes are matched by number, not by name: {list_names(pairs)}.")


def list_names(names: Sequence[str]) -> str:
    """The names with commas; of many only the first, and how many there are."""
    more = f" … ({len(names):,} in all)" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


@torch.no_grad()
def reorder_outputs_(
    model: nn.Module, order: Sequence[int], batch: Mapping[str, Tensor], select: Callable[[str, int, Tensor], None]
) -> bool:
    """Put the logits of a classifier in `order`; False if its output layer is not a linear layer that can be permuted.

    `select(parameter, dim, indices)` keeps the entries `indices` of a parameter, as `resize.select_` does. The model's
    outputs for `batch` before and after show whether it was the right layer; after False, the model is unusable.
    """
    layers = {name: model.get_submodule(name) for name in anatomy(model).outputs} or _last_linear(model, len(order))
    if not layers or any(type(m) is not nn.Linear or len(m.weight) != len(order) for m in layers.values()):
        return False
    indices, before = torch.tensor(order), logits_of(model, dict(batch))
    for name, layer in layers.items():
        for parameter, _ in list(layer.named_parameters(recurse=False)):
            select(f"{name}.{parameter}", 0, indices)
    after = logits_of(model, dict(batch))
    return torch.allclose(after, before[..., indices.to(before.device)], rtol=1e-3, atol=1e-5)


def require_reordered(is_reordered: bool, source: str) -> None:
    """Raise SpecError if `reorder_outputs_` failed."""
    if not is_reordered:
        message = "has the data's classes in another order, and its output layer cannot be permuted"
        remedy = "Choose a model whose classes are in the data's order, or one with a plain linear output layer."
        raise SpecError.of("model.source", source, message, remedy)


def require_match(source: str, outputs: Sequence[str], classes: Sequence[str], remedy: str) -> ClassMatch:
    """The match of a model's outputs with a task's classes; raises SpecError, listing both, if there is none."""
    match = match_classes(source, outputs, classes)
    if match is None:
        message = f"has the classes {list_names(outputs)}, but the data has {list_names(classes)}"
        raise SpecError.of("model.source", source, message, remedy)
    return match


def _plain(name: str) -> str | Decimal:
    number = number_of(name.strip())
    return re.sub(r"[\s_-]+", " ", name).strip().casefold() if number is None else number


def _placeholders(names: Sequence[str]) -> list[int] | None:
    """The numbers in `LABEL_<n>`; None if a name is something else or the numbers are not 0 to n - 1."""
    found = [_PLACEHOLDER.fullmatch(name.strip()) for name in names]
    numbers = [int(match[1]) for match in found if match is not None]
    return numbers if sorted(numbers) == list(range(len(names))) else None


def _last_linear(model: nn.Module, n_outputs: int) -> dict[str, nn.Module]:
    linears = [(name, m) for name, m in model.named_modules() if type(m) is nn.Linear and m.out_features == n_outputs]
    return dict(linears[-1:])
