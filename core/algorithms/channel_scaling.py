"""Scale channels where the network lets a factor through: divided where they are made, multiplied where they are read.

Papers: https://arxiv.org/abs/2211.10438 (SmoothQuant, section 4), https://arxiv.org/abs/2306.00978 (AWQ, section 3).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.models.foldable import Fold, is_offset_norm
from core.nn.experts.linear import ExpertLinear
from core.nn.precision import wide


@torch.no_grad()
def fold_(model: nn.Module, fold: Fold, scales: Tensor) -> None:
    """Divide the producer's channels by positive `scales` and multiply the consumers' inputs, in place.

    `scales` are [channels], or [experts, channels] where producer and consumer are layers of the same experts.
    """
    producer = model.get_submodule(fold.producer)
    if fold.is_norm:
        _divide_norm_(producer, scales)
    else:
        _divide_outputs_(producer, scales, fold.offset)
    for name in fold.consumers:
        multiply_inputs_(model.get_submodule(name), of_inputs(fold, scales))
    for name in fold.readers:
        parameter = model.get_parameter(name)
        parameter.copy_(wide(parameter) * scales.to(wide(parameter)))


@torch.no_grad()
def multiply_inputs_(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the input columns of a linear layer [out, in] by `factors` [in], or each expert's by [experts, in]."""
    weight = layer.get_parameter("weight")
    weight.copy_(scaled_inputs(layer, factors))


def scaled_inputs(layer: nn.Module, factors: Tensor) -> Tensor:
    """A layer's weight [out, in] times `factors` [in], or [experts, in], of its input columns, in float32 or wider."""
    weight = wide(layer.get_parameter("weight").detach())
    factors = factors.to(weight)
    if factors.dim() == 1:
        return weight * factors
    return (weight.unflatten(0, (len(factors), -1)) * factors[:, None, :]).flatten(0, 1)


def of_inputs(fold: Fold, values: Tensor) -> Tensor:
    """What the producer's channels [..., channels] have, for each input of the consumers [..., in]."""
    return values if fold.sources is None else values[..., _sources(fold, values)]


def of_channels(fold: Fold, values: Tensor) -> Tensor:
    """The largest of what the inputs [..., in] have that come from one channel of the producer: [..., channels]."""
    if fold.sources is None:
        return values
    index = _sources(fold, values).expand_as(values)
    empty = values.new_zeros(*values.shape[:-1], fold.channels)
    return empty.scatter_reduce(-1, index, values, reduce="amax")


def largest_weights(model: nn.Module, fold: Fold, *, by_expert: bool) -> Tensor:
    """The largest magnitude of each input column over all consumers: [channels], or [experts, channels]."""
    columns = []
    for name in fold.consumers:
        layer = model.get_submodule(name)
        weight = wide(layer.get_parameter("weight").detach()).abs()
        if by_expert and isinstance(layer, ExpertLinear):
            columns.append(weight.unflatten(0, (layer.experts, -1)).amax(1))
        else:
            columns.append(weight.amax(0))
    return of_channels(fold, _largest(columns))


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).amax(0)


def _sources(fold: Fold, like: Tensor) -> Tensor:
    return torch.tensor(fold.sources, device=like.device)


def _divide_norm_(norm: nn.Module, scales: Tensor) -> None:
    weight, bias = norm.get_parameter("weight"), norm._parameters.get("bias")
    divisor = scales.to(wide(weight))
    if is_offset_norm(norm):
        weight.copy_((1 + wide(weight)) / divisor - 1)
    else:
        weight.copy_(wide(weight) / divisor)
    if bias is not None:
        bias.copy_(wide(bias) / divisor)


def _divide_outputs_(layer: nn.Module, scales: Tensor, offset: int) -> None:
    divisor = scales.flatten()  # experts' rows lie under one another
    rows = slice(offset, offset + len(divisor))
    for parameter in layer.parameters(recurse=False):
        own = wide(parameter[rows])
        parameter[rows] = own / divisor.to(own).view(-1, *[1] * (own.dim() - 1))
