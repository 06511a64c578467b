"""Coupled units: what must be cut together, so that the smaller network computes what its kept units did.

As in LLM-Pruner (https://arxiv.org/abs/2305.11627, section 3.1). A unit of a feed-forward network is its row of the
up (and gate) projection and its column of the down projection; a head its rows of q, k and v and its columns of o,
with grouped keys the whole group of queries; a channel inside a residual block its filter, its normalization and
the next convolution's input.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.errors import SpecError
from core.models.anatomy import Anatomy, heads_of
from core.models.block_names import BlockNames
from core.models.resnet import BasicBlock
from core.subject import Subject


@dataclass(frozen=True)
class Slice:
    """Where units lie in a parameter or buffer: unit i has the entries [i * width, (i + 1) * width) along `dim`."""

    parameter: str
    dim: int
    width: int = 1


@dataclass(frozen=True)
class Units:
    """Units of one layer that can be cut one by one.

    All that they do passes through the input of the layer `gate`: with that part of it zeroed a unit is gone.
    """

    name: str  # of the layer, for people
    kind: str  # "heads", "units" or "channels"
    count: int
    gate: str
    slices: tuple[Slice, ...]
    per_unit: int = 1  # heads in a group of queries

    @property
    def width(self) -> int:
        """Features of the gate's input that belong to a unit."""
        return next(s.width for s in self.slices if s.parameter == f"{self.gate}.weight" and s.dim == 1)


def ffn_units(model: nn.Module, block: BlockNames) -> Units:
    """The hidden units of a block's feed-forward network."""
    ins = [block.up] if block.gate is None else [block.gate, block.up]
    slices = [Slice(name, 0) for layer in ins for name in _parameters(model, layer)]
    owner = block.up.rpartition(".")[0]
    count = _sizes(model, block.down)[1]
    return Units(owner, "units", count, block.down, (*slices, Slice(f"{block.down}.weight", 1)))


def head_units(model: nn.Module, known: Anatomy, block: BlockNames) -> Units:
    """The heads of a block's attention; where queries share keys and values (GQA), all that share them are one unit."""
    known.require("separate q, k, v")
    assert known.head_dim is not None
    for name in (block.q, block.k):
        _sizes(model, name)
    heads, kv_heads = heads_of(model, known, block)
    per_group = heads // max(1, kv_heads)
    wide, narrow = per_group * known.head_dim, known.head_dim
    slices = [Slice(name, 0, wide) for name in _parameters(model, block.q)]
    slices += [Slice(name, 0, narrow) for layer in (block.k, block.v) for name in _parameters(model, layer)]
    slices.append(Slice(f"{block.o}.weight", 1, wide))
    own = getattr(model.get_submodule(block.attention), "per_head", ())
    slices += [Slice(f"{block.attention}.{name}", 0, per_group) for name in own]
    return Units(block.attention, "heads", kv_heads, block.o, tuple(slices), per_group)


def channel_units(model: nn.Module) -> list[Units]:
    """The channels between the two convolutions of every residual block; what is added together stays whole."""
    found = []
    for name, block in model.named_modules():
        if not isinstance(block, BasicBlock):
            continue
        first, norm, second = (f"{name}.{part}" for part in ("conv1", "norm1", "conv2"))
        slices = [Slice(f"{first}.weight", 0)]
        slices += [Slice(f"{norm}.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var")]
        count = _sizes(model, second)[1]
        found.append(Units(name, "channels", count, second, (*slices, Slice(f"{second}.weight", 1))))
    return found


def places(kept: Tensor, width: int) -> Tensor:
    """Entries of the units `kept` (indices) where each has `width` consecutive ones."""
    return (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()


def keep_(subject: Subject, units: Units, kept: Tensor) -> None:
    """Cut all but the units `kept` (indices, in their order) out of the main model; masks are cut along."""
    for part in units.slices:
        subject.shrink(part.parameter, part.dim, places(kept, part.width))


def parameters(units: Iterable[Units], model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters (no buffers) that the units lie in, by full name."""
    names = dict.fromkeys(part.parameter for unit in units for part in unit.slices)
    known = dict(model.named_parameters(remove_duplicate=False))
    return {name: known[name] for name in names if name in known}


def _sizes(model: nn.Module, name: str) -> tuple[int, int]:
    """Outputs and inputs of a plain layer; raises SpecError for one that cannot be cut."""
    layer = model.get_submodule(name)
    if type(layer) not in (nn.Linear, nn.Conv2d):
        remedy = "Prune units before the step that factors, packs or quantizes the layers."
        raise SpecError.of("model", name, f"is a {type(layer).__name__}, which cannot be pruned", remedy)
    weight = layer.get_parameter("weight")
    return weight.shape[0], weight.shape[1]


def _parameters(model: nn.Module, layer: str) -> list[str]:
    """Full names of a layer's weight and, where it has one, bias."""
    _sizes(model, layer)
    return [f"{layer}.{name}" for name, _ in model.get_submodule(layer).named_parameters()]
