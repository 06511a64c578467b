"""What CoFi masks in a Transformer, and masking it: factors on heads, units, layers and channels, by hooks."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from core.algorithms.structured.gates import gated
from core.algorithms.structured.masked_norms import mask_norm
from core.algorithms.structured.stream import norms_of, stream_units, tied_heads
from core.algorithms.structured.units import Units, ffn_units, head_units
from core.models.anatomy import anatomy
from core.models.block_names import BlockNames


@dataclass(frozen=True)
class Structure:
    """The units of every block, and the stream's channels where they are masked too."""

    blocks: list[BlockNames]
    heads: list[Units]
    feeds: list[Units]
    stream: Units | None


@dataclass(frozen=True)
class Masks:
    """A factor on everything: each block's heads and units [count], its attention and its FFN as a whole, channels."""

    heads: list[Tensor]
    feeds: list[Tensor]
    attention_layers: Tensor  # [blocks]
    feed_layers: Tensor  # [blocks]
    stream: Tensor | None  # [width]
    channels: Tensor | None = None  # indices of the stream's channels that are not zero; None: all


def structure_of(model: nn.Module, *, stream: bool) -> Structure:
    """The structure of a model; raises SpecError with the reason where it is not known."""
    known = anatomy(model)
    known.require("blocks' parts")
    known.require("heads")
    return Structure(
        blocks=known.blocks,
        heads=[head_units(model, known, block) for block in known.blocks],
        feeds=[ffn_units(model, block) for block in known.blocks],
        stream=stream_units(model) if stream else None,
    )


def masked(model: nn.Module, structure: Structure, current: Callable[[], Masks]) -> ExitStack:
    """Let every forward pass multiply the masks that `current` gives at that time, until the stack is closed.

    Whatever is written to the stream is masked by its channels, and norms see only the channels that are left.
    """
    stack = ExitStack()
    for index, block in enumerate(structure.blocks):
        _mask_layer(stack, model, block.o, structure.heads[index], lambda i=index: _of_attention(current(), i))  # type: ignore[misc]
        _mask_layer(stack, model, block.down, structure.feeds[index], lambda i=index: _of_feed(current(), i))  # type: ignore[misc]
    if structure.stream is not None:
        first = model.get_submodule(structure.blocks[0].name)
        stack.callback(first.register_forward_pre_hook(_entering(current), with_kwargs=True).remove)
        for name in tied_heads(model):
            head = model.get_submodule(name)
            stack.callback(head.register_forward_pre_hook(lambda _, args: (args[0] * current().stream,)).remove)
        for name in norms_of(model):
            stack.callback(mask_norm(model.get_submodule(name), lambda: current().channels).remove)
    return stack


def _of_attention(masks: Masks, index: int) -> tuple[Tensor, Tensor]:
    return masks.heads[index], _written(masks, masks.attention_layers[index])


def _of_feed(masks: Masks, index: int) -> tuple[Tensor, Tensor]:
    return masks.feeds[index], _written(masks, masks.feed_layers[index])


def _written(masks: Masks, layer: Tensor) -> Tensor:
    return layer if masks.stream is None else layer * masks.stream


def _mask_layer(
    stack: ExitStack, model: nn.Module, name: str, units: Units, factors: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    """Mask what a layer reads (its units) and what it writes, its bias included."""
    if units.count:
        stack.enter_context(gated(model, [units], lambda _: factors()[0]))
    layer = model.get_submodule(name)
    stack.callback(layer.register_forward_hook(lambda _, __, output: output * factors()[1].to(output.dtype)).remove)


def _entering(current: Callable[[], Masks]) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        factor = current().stream
        assert factor is not None
        if args:
            return (args[0] * factor.to(args[0].dtype), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * factor.to(kwargs["hidden_states"].dtype)}

    return hook
