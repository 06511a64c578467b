"""Hidden states between two blocks, for all calibration batches, and what else each block is called with.

The model is executed once with its blocks replaced by catchers that pass their input on, so that the model itself
makes each block's masks, positions and whatever it wants. Everything caught lies in the host's memory; one batch
at a time goes to the device.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from core.nn.tokens.sizes import moved
from core.tasks.base import logits_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class HiddenStates:
    """The inputs of one block after the other. `advance` passes a block, as its weights are then."""

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[dict[str, Tensor]],
        extras: dict[str, tuple[Any, ...] | None],
        device: torch.device,
    ):
        self.model = model
        self.device = device
        caught = [_catch(model, batch, extras) for batch in batches]
        self.states = [hidden for hidden, _ in caught]
        self.arguments = [arguments for _, arguments in caught]

    @torch.no_grad()
    def run(self, block: str, index: int) -> Tensor:
        """A block's output for batch `index`."""
        args, kwargs = tree_map_only(Tensor, lambda t: t.to(self.device), self.arguments[index][block])
        hidden = moved(self.states[index], self.device, copy=True)  # a block may add to it in place
        output = self.model.get_submodule(block)(hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def advance(self, block: str, index: int) -> None:
        """Put a block's output for batch `index` in the place of its input."""
        self.states[index] = moved(self.run(block, index), "cpu")


class _PassedBlocksError(Exception):
    """Ends a forward pass after the last block."""


@torch.no_grad()
def _catch(
    model: nn.Module, batch: dict[str, Tensor], extras: dict[str, tuple[Any, ...] | None]
) -> tuple[Tensor, dict[str, Arguments]]:
    """The first block's hidden states for a batch, and the other arguments of every block."""
    caught: dict[str, Arguments] = {}
    first: list[Tensor] = []
    hosted: dict[int, tuple[Tensor, Tensor]] = {}  # blocks share masks and positions: moved once, kept alive

    def host(tensor: Tensor) -> Tensor:
        return hosted.setdefault(id(tensor), (tensor, tensor.cpu()))[1]

    def catcher(name: str) -> Any:
        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not first:
                first.append(hidden.cpu())
            caught[name] = tree_map_only(Tensor, host, (args, kwargs))
            if len(caught) == len(extras):
                raise _PassedBlocksError
            extra = extras[name]
            return hidden if extra is None else (hidden, *extra)

        return forward

    catchers = {name: catcher(name) for name in extras}
    with without_cache(model), _forwards_replaced(model, catchers), suppress(_PassedBlocksError):
        logits_of(model, batch)
    return first[0], caught


@contextmanager
def _forwards_replaced(model: nn.Module, forwards: dict[str, Any]) -> Iterator[None]:
    """The modules stay in place, since models read attributes of their blocks."""
    modules = {name: model.get_submodule(name) for name in forwards}
    try:
        for name, module in modules.items():
            module.__dict__["forward"] = forwards[name]
        yield
    finally:
        for module in modules.values():
            module.__dict__.pop("forward", None)


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Hugging Face models give their blocks no key-value cache to add to: each is executed several times."""
    config: Any = getattr(model, "config", None)
    before = getattr(config, "use_cache", None)
    if before is None:
        yield
        return
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = before
