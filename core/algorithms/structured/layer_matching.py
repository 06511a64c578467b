"""Distilling from layers whose counterparts are still being found: CoFi's matching.

Paper: https://arxiv.org/abs/2204.00408, section 3.2. Some of the teacher's layers are each learned from by the
student's layer that is nearest to it among those that are left, in the order of the layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.models.anatomy import anatomy

TAUGHT = 4  # layers of the teacher: 3, 6, 9 and 12 of 12


def taught_layers(depth: int) -> list[int]:
    """Indices of the teacher's layers that are learned from: the ends of four equal parts, the last layer always."""
    return sorted({-(-depth * part // TAUGHT) - 1 for part in range(1, TAUGHT + 1)})


def match(distances: Tensor, alive: Sequence[bool]) -> list[int]:
    """For each of the teacher's layers the nearest living layer of the student: [taught, student's] -> [taught].

    From the last of them on; each comes before the one matched last, or is the same where none is left before it.
    """
    found: list[int] = []
    limit = len(alive)
    for row in distances.detach().cpu().flip(0):
        before = [index for index in range(limit) if alive[index]]
        limit = min(before, key=lambda index: float(row[index])) if before else min(limit, len(alive) - 1)
        found.insert(0, limit)
    return found


def layer_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    transform: Tensor,
    alive: Sequence[bool],
    tokens: Tensor | None = None,
) -> Tensor:
    """Sum over the teacher's layers of the mean squared error of the matched student's, taken through `transform`.

    Layers are [B, T, width], `transform` [teacher's width, student's width]; `tokens` [B, T] are those that count.
    """
    own = [(x if tokens is None else x[tokens]).float() @ transform.t() for x in student]
    goals = [(x if tokens is None else x[tokens]).float() for x in teacher]
    distances = torch.stack([torch.stack([(x - goal).square().mean() for x in own]) for goal in goals])
    matched = torch.tensor(match(distances, alive), device=distances.device)
    return distances.gather(1, matched[:, None]).sum()


class TaughtLayers:
    """The layers of a teacher that a student's layers learn from, and the transform between their widths."""

    def __init__(self, teacher: nn.Module, student: nn.Module, device: torch.device):
        blocks = anatomy(teacher).blocks
        self.names = [blocks[index].name for index in taught_layers(len(blocks))] if blocks else []
        self.transform = nn.Parameter(torch.eye(_width(teacher), _width(student), device=device))

    def loss(
        self,
        batch: Mapping[str, Tensor],
        student: Sequence[Tensor],
        teacher: Mapping[str, Tensor],
        alive: Sequence[bool],
    ) -> Tensor:
        """`layer_loss` of the student's layers [B, T, width], where the batch says so of the tokens that count."""
        tokens = batch.get("attention_mask")
        known = tokens is not None and tokens.shape == student[0].shape[:2]
        counted = tokens.bool() if known and tokens is not None else None
        return layer_loss(student, [teacher[name] for name in self.names], self.transform, alive, counted)


def _width(model: nn.Module) -> int:
    """Width of the residual stream; 0 if the blocks are not known."""
    blocks = anatomy(model).blocks
    return model.get_parameter(f"{blocks[0].q}.weight").shape[1] if blocks else 0


@contextmanager
def outputs_of(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Inside, every forward pass leaves these modules' outputs here."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            kept[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
