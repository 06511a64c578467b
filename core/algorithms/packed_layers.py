"""Put packed matrices in the place of the layer that they were made of, and report what rounding did to its weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.models.meta import tied_parameters
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.integer_linear import IntegerLinear
from core.nn.packed_embedding import PackedEmbedding
from core.nn.sparse_integer_linear import without_zeros
from core.subject import Subject


def linears_of(layer: nn.Module) -> list[nn.Linear]:
    """A layer's matrices as linear layers: one of a linear layer or an embedding, one for each expert, else none."""
    if isinstance(layer, ExpertLinear):
        return layer.linears()
    if isinstance(layer, nn.Embedding):
        return [as_linear(layer)]
    return [layer] if isinstance(layer, nn.Linear) else []


def as_linear(embedding: nn.Embedding) -> nn.Linear:
    """A linear layer with the embedding's table as its weight: each token is an output."""
    linear = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta")
    linear.weight = nn.Parameter(embedding.weight.detach())
    return linear


def find_tied_layer(model: nn.Module, embedding: str) -> str | None:
    """The name of the layer whose weights are this embedding's, usually the head's; None if there is none."""
    group = next((names for names in tied_parameters(model) if f"{embedding}.weight" in names), [])
    return next((n.removesuffix(".weight") for n in group if n != f"{embedding}.weight"), None)


@torch.no_grad()
def replace_by_packed(subject: Subject, name: str, packed: Sequence[IntegerLinear], bits: float) -> dict[str, Any]:
    """Put `packed`, one for each of `linears_of` the layer `name`, in its place, and return its row of the report.

    If the layer has a mask, its zeros are not stored where that takes fewer bytes. A layer with the same weights as an
    embedding becomes its packed table.
    """
    layer = subject.model.get_submodule(name)
    weight, rounded = layer.get_parameter("weight").detach(), torch.cat([matrix.weight() for matrix in packed])
    if isinstance(layer, ExpertLinear):
        masked = subject.mask(f"{name}.weight") is not None
        subject.replace(name, PackedExpertLinear.of([without_zeros(p) if masked else p for p in packed]))
    elif isinstance(layer, nn.Embedding):
        tied = find_tied_layer(subject.model, name)
        subject.replace(name, PackedEmbedding.of(packed[0]))
        if tied is not None:
            subject.replace(tied, packed[0])
    else:
        subject.replace(name, packed[0])
    return layer_report(name, weight, rounded, bits)


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
