"""The layers that weight quantization applies to, and going through them."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch

import torch
from torch import nn

from core.algorithms.packed_layers import linears_of, replace_by_packed
from core.context import Context
from core.errors import SpecError
from core.models.anatomy import anatomy, prunable
from core.nn.experts.linear import ExpertLinear
from core.nn.integer_linear import IntegerLinear
from core.subject import Subject


def quantizable(subject: Subject, include_head: bool, skip: list[str]) -> list[str]:
    """Full names of the dense linear layers to quantize, experts' too; raises SpecError if there is nothing to do.

    Embeddings, and what shares its weights with one, keep their precision; so do layers that match a pattern of `skip`.
    """
    model = subject.model
    for name, module in model.named_modules():
        if isinstance(module, IntegerLinear):
            message = f"is already a {type(module).__name__}"
            raise SpecError.of("model", name, message, "Keep one of the two quantization steps.")
    for pattern in skip:
        if not any(fnmatch(name, pattern) for name, _ in model.named_modules()):
            raise SpecError.of("skip", pattern, "matches no module of this model", f"Use names like {_example(model)}.")
    names = prunable(model, (nn.Linear, ExpertLinear))
    known = anatomy(model)
    if include_head and known.tied:
        message = "would also quantize the embedding, whose weights the head shares"
        raise SpecError.of("include_head", True, message, "Set include_head: false.")
    if include_head:
        names += [name for name in known.outputs if name in known.linears]
    chosen = [name for name in names if not any(fnmatch(name, pattern) for pattern in skip)]
    if not chosen:
        message = "leaves no linear layer to quantize"
        raise SpecError.of("skip", skip, message, "Choose a model with linear layers, or skip fewer of them.")
    return chosen


@torch.no_grad()
def quantize_layers(
    subject: Subject, context: Context, names: Sequence[str], bits: int, quantize: Callable[[nn.Linear], IntegerLinear]
) -> None:
    """Swap in what `quantize` makes of each layer and report it; pruned weights stay exactly zero."""
    layers = []
    for index, name in enumerate(names):
        context.record.progress(index / len(names), name)
        packed = [quantize(linear) for linear in linears_of(subject.model.get_submodule(name))]
        layers.append(replace_by_packed(subject, name, packed, bits))
    subject.details["layers"] = layers


def _example(model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Linear)), "head")
