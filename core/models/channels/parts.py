"""Which layers' inputs can take another order for N:M: a Transformer's parts by name, and whatever else is free."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.models.anatomy import Anatomy
from core.models.block_names import BlockNames
from core.models.channels.slots import Channels, Network, Slot
from core.nn.packing import rows_of

FFN, VALUES, RESIDUAL, OTHER = "ffn", "values", "residual", "channels"


@dataclass(frozen=True, eq=False)
class ChannelPart:
    """Channels whose order is worth a search: N:M prunes their consumers along them."""

    kind: str
    channels: Channels
    consumers: tuple[Slot, ...]  # on axis 1 of the weights that are pruned

    @property
    def layers(self) -> list[str]:
        """Full names of the consumers, each once."""
        return list(dict.fromkeys(slot.name.removesuffix(".weight") for slot in self.consumers))

    def matrix(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The consumers' weights stacked along their outputs: [K, C]."""
        return torch.cat([_columns(tensors[slot.name], slot) for slot in self.consumers])


def _columns(weight: Tensor, slot: Slot) -> Tensor:
    columns = rows_of(weight)[:, slot.places.to(weight.device)]  # [K, copies, C]
    return columns.flatten(0, 1)


def find_parts(
    network: Network, anatomy: Anatomy, pruned: Sequence[str], m: int, kinds: frozenset[str]
) -> tuple[list[ChannelPart], dict[str, str]]:
    """The parts of these kinds, and the layers of the `pruned` weights that keep their order, with the reason."""
    parts: list[ChannelPart] = []
    reasons: dict[str, str] = {}
    weights = []
    for name in dict.fromkeys(network.names[name] for name in pruned):
        n_inputs = network.tensors[name].shape[1]
        if n_inputs % m:
            reasons[name] = f"{m} does not divide their {n_inputs} channels"
        else:
            weights.append(name)
            reasons |= {name: network.frozen[name, 1]} if (name, 1) in network.frozen else {}
    for channels in network.channels:
        consumers = tuple(slot for slot in channels.slots if slot.axis == 1 and slot.name in weights)
        if not consumers:
            continue
        kind = _kind(anatomy.blocks, consumers)
        reason = f"{kind} is off" if kind not in kinds else _hindrance(channels, consumers, m)
        if reason is None:
            parts += _heads(anatomy.blocks, ChannelPart(kind, channels, consumers))
        else:
            reasons |= {slot.name: reason for slot in consumers}
    searched = {layer for part in parts for layer in part.layers}
    left = {name.removesuffix(".weight"): reason for name, reason in reasons.items()}
    return parts, {layer: reason for layer, reason in left.items() if layer not in searched}


def _kind(blocks: Sequence[BlockNames], consumers: Sequence[Slot]) -> str:
    layers = {slot.name.removesuffix(".weight") for slot in consumers}
    if layers & {name for block in blocks for name in (block.q, block.k, block.v, block.gate, block.up)}:
        return RESIDUAL
    if layers & {block.down for block in blocks}:
        return FFN
    return VALUES if layers & {block.o for block in blocks} else OTHER


def _hindrance(channels: Channels, consumers: Sequence[Slot], m: int) -> str | None:
    """Why no order of these channels would help, None if one may."""
    if channels.size % m:
        return f"{m} does not divide their {channels.size} channels"
    if channels.size == m:
        return f"they are one group of {m}"
    if all(slot.fills_groups_of(m) for slot in consumers):
        return f"every group of {m} inputs is of one channel"
    scattered = [slot.name.removesuffix(".weight") for slot in consumers if not slot.in_runs_of(m)]
    return f"they do not lie side by side in {scattered[0]}" if scattered else None


def _heads(blocks: Sequence[BlockNames], part: ChannelPart) -> Iterator[ChannelPart]:
    """Values of known attentions apart by heads: those of one head of keys and values move together.

    So they do for all the heads of queries that it serves. Where something has these channels only once for all heads
    (a norm that they share), they stay one part.
    """
    block = next((block for block in blocks if [block.o] == part.layers), None)
    slots = part.channels.slots
    produced = {len(slot.places) for slot in slots if slot not in part.consumers}
    n_heads = min(produced, default=1)
    if block is None or len(produced) > 1 or any(len(slot.places) % n_heads for slot in part.consumers):
        yield part
        return
    for head in range(n_heads):
        own = {slot: _of_head(slot, head, n_heads) for slot in slots}
        consumers = tuple(own[slot] for slot in part.consumers)
        yield ChannelPart(VALUES, Channels(tuple(own.values())), consumers)


def _of_head(slot: Slot, head: int, n_heads: int) -> Slot:
    return Slot(slot.name, slot.axis, slot.places.unflatten(0, (n_heads, -1))[head])
