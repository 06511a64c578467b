"""Wanda's score, and the walk over a model that prunes each block by the inputs that the pruned ones before it give."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from core.calibration import groups_of, matrices_of, weight_from_matrices
from core.context import Context
from core.subject import Subject


def wanda_scores(weight: Tensor, input_norms: Tensor) -> Tensor:
    """|weight| * ||input||: weight [..., rows, d], norms [..., d]."""
    return weight.abs().float() * input_norms[..., None, :]


@torch.no_grad()
def prune_by_input_norms(
    subject: Subject,
    context: Context,
    layers: Collection[str],
    n_examples: int,
    choose: Callable[[Tensor], Tensor],
) -> None:
    """Mask each of `layers` by what `choose` keeps of its scores [rows, d]; what was pruned stays so, and counts."""
    for block in context.blocks(subject, n_examples, layers):
        for names, norms in block.input_norms():
            for name in names:
                layer, old = subject.model.get_submodule(name), subject.mask(f"{name}.weight")
                weight = layer.get_parameter("weight")
                scores = wanda_scores(matrices_of(weight, groups_of(layer)), norms)
                if old is not None:
                    scores.masked_fill_(~matrices_of(old, groups_of(layer)), -1.0)
                kept = choose(scores.flatten(0, 1)).view_as(scores)
                mask = weight_from_matrices(kept, weight.shape)
                subject.constrain(f"{name}.weight", mask=mask if old is None else mask & old)
