"""The layers and embeddings that weight quantization applies to, and going through them."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch

import torch
from torch import nn

from core.algorithms.packed_layers import find_tied_layer, linears_of, replace_by_packed
from core.context import Context
from core.errors import SpecError
from core.models.anatomy import anatomy, prunable, token_tables
from core.nn.experts.linear import ExpertLinear
from core.nn.integer_linear import IntegerLinear
from core.subject import Subject


def quantizable(
    subject: Subject, include_head: bool, skip: list[str], include_embeddings: bool | None = None
) -> list[str]:
    """Full names of the dense linear layers to quantize, experts' too; raises SpecError if there is nothing to do.

    With `include_embeddings` (None: the technique has no such setting) also those of the embeddings of tokens; a head
    that shares their weights goes with them. Other embeddings keep their precision, and so does what matches a pattern
    of `skip`.
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
    if include_head and known.tied and not include_embeddings:
        message = "would also quantize the embedding, whose weights the head shares"
        more = "" if include_embeddings is None else ", or include_embeddings: true to quantize both once"
        raise SpecError.of("include_head", True, message, f"Set include_head: false{more}.")
    if include_head:
        names += [name for name in known.outputs if name in known.linears and not known.tied]
    if include_embeddings:
        names = [*_embeddings(model), *names]
    chosen = [name for name in names if not any(fnmatch(name, pattern) for pattern in skip)]
    if not chosen:
        message = "leaves no linear layer to quantize"
        raise SpecError.of("skip", skip, message, "Choose a model with linear layers, or skip fewer of them.")
    return chosen


@torch.no_grad()
def quantize_layers(
    subject: Subject,
    context: Context,
    names: Sequence[str],
    bits: float,
    quantize: Callable[[nn.Linear], IntegerLinear],
) -> None:
    """Swap in what `quantize` makes of each layer and report it; pruned weights stay exactly zero."""
    layers = []
    for index, name in enumerate(names):
        context.record.progress(index / len(names), name)
        packed = [quantize(linear) for linear in linears_of(subject.model.get_submodule(name))]
        layers.append(replace_by_packed(subject, name, packed, bits))
    subject.details["layers"] = layers


def _embeddings(model: nn.Module) -> list[str]:
    """Names of the embeddings of tokens; raises SpecError if there is none, or one cannot be packed."""
    names = token_tables(model)
    if not names:
        message = "needs an embedding of tokens, which this model does not have"
        raise SpecError.of("include_embeddings", True, message, "Set include_embeddings: false.")
    for name in names:
        head = find_tied_layer(model, name)
        if head is not None and getattr(model.get_submodule(head), "bias", None) is not None:
            message = f"would pack {name} together with {head}, which shares its weights and has a bias of its own"
            raise SpecError.of("include_embeddings", True, message, "Set include_embeddings: false.")
    return names


def _example(model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Linear)), "head")
