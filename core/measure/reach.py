"""Which share of a model's parameters a step reached.

A step reaches a parameter where it changes or covers it. It changes it by writing to it, replacing it or taking it out.
It covers it by setting its mask, cutting its axes, or putting another module in the place of one that holds it, even
where each value stays as it was. So a mask that drops nothing covers its weight, swapped attention its projections, and
a layer that a step passes over is not reached. Packed layers count as the weights that they stand for, tied parameters
once, and what a step adds not at all.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.measure.compute import count_packed, outermost, place_of
from core.subject import Subject

MOST_MISSED = 20  # modules that are named


@dataclass(frozen=True)
class _Weights:
    """A parameter, or a packed layer, before a step."""

    name: str
    count: int
    holder: weakref.ref[Any]
    marks: tuple[Any, ...]


class Snapshot:
    """The parameters of a subject's main model before a step."""

    def __init__(self, subject: Subject):
        self._subject, model = subject, subject.model
        subject.covered.clear()
        self._kinds = {name: type(module).__name__ for name, module in model.named_modules()}
        self._weights = [_Weights(name, n, weakref.ref(held), _marks(held)) for name, held, n in _weights_of(model)]

    def compare(self) -> dict[str, Any]:
        """What the step reached: `share` of all `parameters`, the share `covered`, and which modules it `missed`."""
        after = {name: held for name, held, _ in _weights_of(self._subject.model)}
        known = {id(held) for weights in self._weights if (held := weights.holder()) is not None}
        kept = known & {id(held) for held in after.values()}
        made_anew = {name: held for name, held in after.items() if id(held) not in known}
        covered_names = self._subject.covered
        total = sum(weights.count for weights in self._weights)
        covered = sum(weights.count for weights in self._weights if _is_covered(weights, covered_names))
        missed: dict[str, int] = {}
        for weights in self._weights:
            if not _is_covered(weights, covered_names) and not _is_changed(weights, kept, made_anew):
                owner = weights.name if weights.name in self._kinds else weights.name.rpartition(".")[0]
                missed[owner] = missed.get(owner, 0) + weights.count
        largest = sorted(missed.items(), key=lambda item: -item[1])[:MOST_MISSED]
        return {
            "share": (total - sum(missed.values())) / max(1, total),
            "covered": covered / max(1, total),
            "parameters": total,
            "missed": [{"name": name, "kind": self._kinds[name], "parameters": count} for name, count in largest],
        }


def _weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module | nn.Parameter, int]]:
    """Name, holder and weights of each packed layer and of each ordinary parameter, tied ones once."""
    names = {id(module): name for name, module in model.named_modules()}
    seen: set[tuple[int, int, int]] = set()
    packed = count_packed(model)
    for module in dict.fromkeys(outermost(model, packed)):  # a tied head's once
        seen.update(place_of(tensor) for name, tensor in module.named_parameters() if name != "bias")
        yield names[id(module)], module, packed[module].weights
    for name, parameter in model.named_parameters():
        if place_of(parameter) not in seen:
            seen.add(place_of(parameter))
            yield name, parameter, parameter.numel()


def _marks(held: nn.Module | nn.Parameter) -> tuple[Any, ...]:
    """Equal as long as nobody writes to the parameter, or to a tensor of the packed layer."""
    tensors = held.state_dict().values() if isinstance(held, nn.Module) else [held]
    return tuple((tuple(t.shape), t.dtype, t._version, _digest(t)) for t in tensors)


def _digest(tensor: Tensor) -> int:
    """Of the values: what is written through `data` has no version."""
    return int(torch.hash_tensor(tensor.detach()).view(torch.int64)) if tensor.numel() else 0


def _is_covered(weights: _Weights, covered: set[str]) -> bool:
    parts = weights.name.split(".")
    return any(".".join(parts[:n]) in covered for n in range(1, len(parts) + 1))


def _is_changed(weights: _Weights, kept: set[int], made_anew: dict[str, nn.Module | nn.Parameter]) -> bool:
    """`kept` are the ids of what is still in the model; what was `made_anew` under the same name may be equal."""
    held = weights.holder()
    if held is not None and id(held) in kept:
        return _marks(held) != weights.marks
    again = made_anew.get(weights.name)
    return again is None or _without_versions(_marks(again)) != _without_versions(weights.marks)


def _without_versions(marks: tuple[Any, ...]) -> list[Any]:
    return [(shape, dtype, digest) for shape, dtype, _, digest in marks]
