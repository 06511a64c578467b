"""What the methods share that train sparse weights from scratch: which weights take part, and how a set changes."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from core.algorithms.masks import prunable_weights
from core.context import Context
from core.errors import SpecError
from core.subject import Subject


def sparse_weights(model: nn.Module, *, dense_ends: bool) -> dict[str, nn.Parameter]:
    """The weights to train sparsely, by full name: those that may be pruned, `dense_ends` without first and last layer.

    Embeddings and output heads, the ends of most models, are never among them. Raises SpecError if none is left.
    """
    weights = prunable_weights(model)
    if dense_ends:
        layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding))]
        for end in (layers[0], layers[-1]):
            weights.pop(f"{end}.weight", None)
    if not weights:
        message = "leaves no layer between the first and the last"
        raise SpecError.of("dense_ends", dense_ends, message, "Set it to false, or choose a deeper model.")
    return weights


def take_masks_over(subject: Subject, context: Context, names: Collection[str], sparsity: float) -> None:
    """Let go of earlier steps' masks of these weights, which a training to `sparsity` chooses anew.

    The log tells of it: as a warning where the masks were sparser, since what they dropped may come back.
    """
    old = [mask for name in names if (mask := subject.mask(name)) is not None]
    if not old:
        return
    before = 1 - sum(int(mask.sum()) for mask in old) / sum(mask.numel() for mask in old)
    message = (
        f"masks of {len(old)} layers ({100 * before:.3g} % zeros) are replaced by new ones ({100 * sparsity:.3g} %)"
    )
    context.record.event("warning" if before > sparsity + 0.005 else "info", message)
    for name in names:
        subject.constraints.pop(f"main.{name}", None)


def clear_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, cleared: Tensor) -> None:
    """Zero momentum and Adam's averages where `cleared`: what is frozen must not drift, what is new starts afresh."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(cleared, 0)
