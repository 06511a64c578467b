"""Other weights in a model for a while, to measure what they would do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def trial_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, these layers have these weights, by the layers' full names; in their own dtype, on their own device."""
    originals = {name: (layer := model.get_submodule(name), layer.get_parameter("weight")) for name in weights}
    try:
        for name, weight in weights.items():
            layer, own = originals[name]
            layer.register_parameter("weight", nn.Parameter(weight.to(own.device, own.dtype), requires_grad=False))
        yield
    finally:
        for layer, own in originals.values():
            layer.register_parameter("weight", own)
