"""The layers and embeddings that weight quantization applies to, and the report on each."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from core.context import Context
from core.errors import SpecError
from core.models.anatomy import anatomy, prunable, token_tables
from core.models.meta import tied_parameters
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.integer_linear import IntegerLinear
from core.nn.packed_embedding import PackedEmbedding
from core.nn.sparse_integer_linear import without_zeros
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
        layer = subject.model.get_submodule(name)
        assert isinstance(layer, (nn.Linear, nn.Embedding, ExpertLinear))
        if isinstance(layer, ExpertLinear):
            packed = [quantize(expert) for expert in layer.linears()]
            rounded = torch.cat([expert.weight() for expert in packed])
            masked = subject.mask(f"{name}.weight") is not None
            subject.replace(name, PackedExpertLinear.of([without_zeros(e) if masked else e for e in packed]))
        elif isinstance(layer, nn.Embedding):
            rounded = replace_embedding(subject, name, quantize(as_linear(layer))).weight()
        else:
            made = quantize(layer)
            rounded = made.weight()
            subject.replace(name, made)
        layers.append(layer_report(name, layer.weight, rounded, bits))
    subject.details["layers"] = layers


def as_linear(embedding: nn.Embedding) -> nn.Linear:
    """A linear layer with the embedding's table as its weight: each token is an output."""
    linear = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta")
    linear.weight = nn.Parameter(embedding.weight.detach())
    return linear


def replace_embedding(subject: Subject, name: str, table: IntegerLinear) -> IntegerLinear:
    """Look tokens up in a packed table instead of the embedding `name`; a head with the same weights becomes it."""
    head = _tied_head(subject.model, name)
    subject.replace(name, PackedEmbedding.of(table))
    if head is not None:
        subject.replace(head, table)
    return table


def layer_report(name: str, weight: Tensor, rounded: Tensor, bits: float) -> dict[str, Any]:
    """What rounding did to a layer's weights [out, in]: a row of the run page's table."""
    weight = weight.float()
    error = rounded - weight
    energy = weight.square().mean().item()
    mse = error.square().mean().item()
    return {
        "name": name,
        "bits": bits,
        "mse": mse,
        "relative_error": (mse / energy) ** 0.5 if energy > 0 else 0.0,
        "max_error": error.abs().max().item(),
        "sparsity": 1 - torch.count_nonzero(rounded).item() / rounded.numel(),
    }


def _embeddings(model: nn.Module) -> list[str]:
    """Names of the embeddings of tokens; raises SpecError if there is none, or one cannot be packed."""
    names = token_tables(model)
    if not names:
        message = "needs an embedding of tokens, which this model does not have"
        raise SpecError.of("include_embeddings", True, message, "Set include_embeddings: false.")
    for name in names:
        head = _tied_head(model, name)
        if head is not None and getattr(model.get_submodule(head), "bias", None) is not None:
            message = f"would pack {name} together with {head}, which shares its weights and has a bias of its own"
            raise SpecError.of("include_embeddings", True, message, "Set include_embeddings: false.")
    return names


def _tied_head(model: nn.Module, embedding: str) -> str | None:
    """The name of the layer whose weights are this embedding's."""
    group = next((names for names in tied_parameters(model) if f"{embedding}.weight" in names), [])
    return next((n.removesuffix(".weight") for n in group if n != f"{embedding}.weight"), None)


def _example(model: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Linear)), "head")
