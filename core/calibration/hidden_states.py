"""Hidden states between two blocks, for all calibration batches, and what else each block is called with.

The model is executed once with its blocks replaced by catchers that pass their input on, so that the model itself
makes each block's masks, positions and whatever it wants. Everything caught lies in the host's memory; one batch
at a time goes to the device. Two streams are kept where a block is to be compared with what it was: the hidden states
that the changed blocks gave, and those that the unchanged ones did.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from core.nn.tokens.sizes import moved
from core.tasks.base import logits_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class HiddenStates:
    """The inputs of one block after the other. `advance` passes a block, as its weights are then.

    `states` are what the blocks as they have been changed give. `originals`, where they are kept apart, are what the
    unchanged ones gave: the walk puts the outputs there that a block has before it is changed.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[dict[str, Tensor]],
        extras: dict[str, tuple[Any, ...] | None],
        device: torch.device,
        *,
        keep_originals: bool = False,
    ):
        self.model = model
        self.device = device
        caught = [_catch(model, batch, extras) for batch in batches]
        self.states = [hidden for hidden, _ in caught]
        self.originals = list(self.states) if keep_originals else self.states
        self.arguments = [arguments for _, arguments in caught]
        self._extras = extras

    def call(self, block: str, index: int, *, original: bool = False) -> Arguments:
        """What a block is called with for batch `index`, on the device; `original`: with what unchanged blocks gave."""
        args, kwargs = tree_map_only(Tensor, lambda t: t.to(self.device), self.arguments[index][block])
        states = self.originals if original else self.states
        return (moved(states[index], self.device, copy=True), *args), kwargs  # a block may add to it in place

    @torch.no_grad()
    def run(self, block: str, index: int, *, original: bool = False) -> Tensor:
        """A block's output for batch `index`."""
        args, kwargs = self.call(block, index, original=original)
        return hidden_of(self.model.get_submodule(block)(*args, **kwargs))

    def advance(self, block: str, index: int) -> None:
        """Put a block's output for batch `index` in the place of its input."""
        self.states[index] = moved(self.run(block, index), "cpu")

    def gradient(self, block: str, output: Tensor, loss: Callable[[nn.Module], Tensor]) -> Tensor:
        """The gradient of the model's `loss` by a block's output, where that is `output` [B, T, d].

        The blocks after it are executed as they are now; those before it are not.
        """
        leaf = moved(output, self.device, copy=True).requires_grad_()
        names = list(self._extras)
        forwards = {name: _passing(self._extras[name]) for name in names[: names.index(block)]}
        forwards[block] = _passing(self._extras[block], instead=leaf)
        with torch.enable_grad(), without_cache(self.model), _forwards_replaced(self.model, forwards):
            return torch.autograd.grad(loss(self.model), leaf)[0]


def hidden_of(output: Any) -> Tensor:
    """The hidden states of what a block returns."""
    return output[0] if isinstance(output, tuple) else output


def _passing(extra: tuple[Any, ...] | None, instead: Tensor | None = None) -> Any:
    """A block's forward pass that gives its input, or `instead`, and the additional outputs."""

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = hidden if instead is None else instead
        return given if extra is None else (given, *extra)

    return forward


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
        passing = _passing(extras[name])

        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not first:
                first.append(hidden.cpu())
            caught[name] = tree_map_only(Tensor, host, (args, kwargs))
            if len(caught) == len(extras):
                raise _PassedBlocksError
            return passing(hidden)

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
