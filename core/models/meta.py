"""Building a model without memory for its weights, giving it weights, and knowing which of them are shared."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules made inside have their parameters on the meta device, and real buffers.

    So nothing is allocated for weights, while what no checkpoint holds (rotary frequencies) is right.
    Parameters that share memory go on doing so.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def tied_parameters(model: nn.Module) -> list[list[str]]:
    """Full names of the parameters that share their memory, a list a group, in the model's own order."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key = (parameter.untyped_storage()._cdata, int(parameter.storage_offset()))
        groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def shared_tensors(model: nn.Module) -> list[list[str]]:
    """Full names of the saved tensors that are the same, a list a group: tied parameters, shared modules' buffers."""
    groups: dict[tuple[int, int, int], list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        key = (tensor.untyped_storage()._cdata, int(tensor.storage_offset()), tensor.numel())
        groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def assign_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model its parameters and buffers, without copying; strict, and tied parameters stay tied.

    Of tensors that are the same `tensors` needs only one. Raises RuntimeError naming what is missing or too much.
    """
    tied = tied_parameters(model)
    state = dict(tensors)
    for names in shared_tensors(model):
        held = next((name for name in names if name in state), None)
        if held is not None:
            state |= dict.fromkeys(names, state[held])
    model.load_state_dict(state, strict=True, assign=True)
    for first, *others in tied:
        for name in others:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, model.get_parameter(first))
