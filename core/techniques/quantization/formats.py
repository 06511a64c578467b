"""One layer in each of the formats that a choice is made among, really packed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.algorithms.quantization_grids import QuantizationScheme, quantize_groups
from core.algorithms.trial_weights import trial_weights
from core.allocation.table import LayerFormat
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.integer_linear import IntegerLinear
from core.nn.quant_linear import QuantLinear
from core.nn.replacement import Replacement
from core.nn.sparse_integer_linear import without_zeros
from core.subject import Subject
from core.techniques.quantization.dynamic_int8 import quantize as quantize_int8

QuantizableLayer = nn.Linear | ExpertLinear


@dataclass(frozen=True)
class PackedLayer:
    """A layer's replacement, and the weights float32 [out, in] that it stands for."""

    module: Replacement
    weight: Tensor
    changes_activations: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of codes, scales and zero points: all tensors but the bias."""
        state = self.module.state_dict().items()
        return sum(t.numel() * t.element_size() for name, t in state if name.rpartition(".")[2] != "bias")

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """The kernel of the layer, or of its experts."""
        parts = self.module.layers if isinstance(self.module, PackedExpertLinear) else [self.module]
        names = {part.kernel(device, dtype) for part in parts if isinstance(part, Replacement)}
        return names.pop() if len(names) == 1 else None


def layer_of(model: nn.Module, name: str) -> QuantizableLayer:
    """The layer with this full name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, (nn.Linear, ExpertLinear))
    return layer


@torch.no_grad()
def pack_layer(subject: Subject, name: str, format: LayerFormat, rounding: dict[str, Any]) -> PackedLayer:
    """A layer rounded to a format other than dense; `rounding` has the settings of `QuantizationScheme`.

    Codes of masked weights are stored without their zeros where this is smaller.
    """
    layer, masked = layer_of(subject.model, name), subject.mask(f"{name}.weight") is not None
    pack = _packer(format, rounding)
    if isinstance(layer, ExpertLinear):
        experts = [pack(expert) for expert in layer.linears()]
        weight = torch.cat([expert.weight() for expert in experts])
        module = PackedExpertLinear.of([without_zeros(e) if masked else e for e in experts])
        return PackedLayer(module, weight, format.activation_bits is not None)
    made = pack(layer)
    return PackedLayer(without_zeros(made) if masked else made, made.weight(), format.activation_bits is not None)


def scheme_of(format: LayerFormat, rounding: dict[str, Any]) -> QuantizationScheme:
    """How a format that changes weights only rounds them."""
    return QuantizationScheme(format.bits, group_size=format.group_size, **rounding)


def _packer(format: LayerFormat, rounding: dict[str, Any]) -> Callable[[nn.Linear], IntegerLinear]:
    if format.activation_bits is not None:
        return quantize_int8
    scheme = scheme_of(format, rounding)

    def pack(linear: nn.Linear) -> QuantLinear:
        weight = linear.weight.float()
        return scheme.pack(linear, lambda fit, group_size: quantize_groups(weight, fit, group_size))

    return pack


def changed_weights(model: nn.Module, packed: Mapping[str, PackedLayer]) -> Iterator[tuple[str, Tensor]]:
    """Full name and change, float32 [out, in], of each layer's weight."""
    for name, layer in packed.items():
        weight = model.get_parameter(f"{name}.weight").detach()
        yield name, layer.weight.to(weight.device) - weight.float()


@contextmanager
def with_layers(model: nn.Module, packed: Mapping[str, PackedLayer]) -> Iterator[None]:
    """Inside, the layers compute as their packed forms do.

    Formats that change weights only are put into the dense layers, which are faster than unpacking for every batch.
    """
    weights = {name: layer.weight for name, layer in packed.items() if not layer.changes_activations}
    originals = {name: model.get_submodule(name) for name in packed.keys() - weights.keys()}
    try:
        for name in originals:
            model.set_submodule(name, packed[name].module)
        with trial_weights(model, weights):
            yield
    finally:
        for name, original in originals.items():
            model.set_submodule(name, original)
