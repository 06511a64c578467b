"""Compute: weights, nonzero weights and multiply-accumulates, counted on the real modules."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from core.models.batches import Batch, place
from core.nn.precision import float_dtype
from core.nn.replacement import Replacement, WeightCount
from core.runtimes.decode import decoder_of
from core.tasks.base import inputs

Packed: TypeAlias = Mapping[nn.Module, WeightCount]  # modules that stand for matrices, with what these amount to


@runtime_checkable
class Routed(Protocol):
    """A module of which each example uses only a part (experts)."""

    def inactive_parameters(self) -> int:
        """Parameters that one token does not use."""
        ...


@dataclass(frozen=True)
class Weights:
    """Counts over a model's tensors; tied tensors count once, packed ones as the matrices that they represent."""

    parameters: int
    active_parameters: int
    nonzeros: int
    bits: float  # nominal bits a weight, mean over the weight matrices (two axes or more)
    sparsity: float  # share of zeros in the weight matrices


@dataclass(frozen=True)
class Compute:
    """Weights and compute of one model."""

    parameters: int
    active_parameters: int
    nonzeros: int
    macs: int  # of one example's forward pass; of one token, averaged over the window, for a language model
    bits: float
    sparsity: float
    decode_macs: int | None = None  # of the window's last token, the keys and values of those before it kept


def count(model: nn.Module, batch: Batch, *, per_token: bool = False, decode: bool = False) -> Compute:
    """Count on the batch's first example, a model's keyword arguments (labels are ignored).

    `per_token` divides the forward pass by the window's tokens; `decode` also counts one token generated
    with cached keys and values.
    """
    first = {key: value[:1] for key, value in inputs(batch).items()}
    example = place(first, next(iter(first.values())).device, float_dtype(model))
    packed = count_packed(model)
    total = _executed(model, packed, lambda: model(**example))
    decode_macs = _decode_macs(model, packed, example) if decode else None
    weights = _weights(model, packed)
    return Compute(
        parameters=weights.parameters,
        active_parameters=weights.active_parameters,
        nonzeros=weights.nonzeros,
        macs=round(total / example["input_ids"].shape[1]) if per_token else total,
        bits=weights.bits,
        sparsity=weights.sparsity,
        decode_macs=decode_macs,
    )


def _decode_macs(model: nn.Module, packed: Packed, example: Batch) -> int | None:
    decoder = decoder_of(model)
    if decoder is None:
        return None
    prompt = {"input_ids": example["input_ids"][:, :-1]}
    with torch.no_grad():
        decoder.prefill(prompt, 1)
    return _executed(model, packed, decoder.step)


def count_macs(model: nn.Module, batch: Batch) -> int:
    """Multiply-accumulates of one forward pass: matrix products and convolutions, as torch executes them.

    Attention counts all computed pairs, including masked ones. A packed module counts what its
    kernel executes (`Replacement.macs`), else its whole matrix for every row.
    """
    return _executed(model, count_packed(model), lambda: model(**batch))


def count_weights(model: nn.Module) -> Weights:
    """Count parameters and nominal bits; see `Weights`."""
    return _weights(model, count_packed(model))


def count_packed(model: nn.Module) -> Packed:
    """The counts of all modules that define one, taken once, since each unpacks its weights for it."""
    counts = {module: module.count() for module in model.modules() if isinstance(module, Replacement)}
    return {module: count for module, count in counts.items() if count is not None}


def _weights(model: nn.Module, packed: Packed) -> Weights:
    parts = list(_parts(model, packed))
    matrices = [part for part in parts if part.is_matrix]
    entries = sum(part.weights for part in matrices)
    total = sum(part.weights for part in parts)
    inactive = sum(module.inactive_parameters() for module in model.modules() if isinstance(module, Routed))
    return Weights(
        parameters=total,
        active_parameters=total - inactive,
        nonzeros=sum(part.nonzeros for part in parts),
        bits=sum(part.bits * part.weights for part in matrices) / max(entries, 1),
        sparsity=sum(part.weights - part.nonzeros for part in matrices) / max(entries, 1),
    )


@dataclass(frozen=True)
class _Part:
    weights: int
    nonzeros: int
    bits: float
    is_matrix: bool


def _parts(model: nn.Module, packed: Packed) -> Iterator[_Part]:
    """Each packed module and each ordinary parameter, except those that share storage with an earlier one."""
    seen: set[tuple[int, int, int]] = set()
    for module in outermost(model, packed):
        own = [place_of(tensor) for name, tensor in _tensors(module) if name != "bias"]
        if not (own and seen.issuperset(own)):
            count = packed[module]
            yield _Part(count.weights, count.nonzeros, count.bits, is_matrix=True)
        seen.update(own)
    for parameter in model.parameters():
        place = place_of(parameter)
        if place not in seen:
            seen.add(place)
            n_nonzero = int(torch.count_nonzero(parameter))
            yield _Part(parameter.numel(), n_nonzero, 8.0 * parameter.element_size(), parameter.dim() >= 2)


def outermost(module: nn.Module, packed: Packed) -> Iterator[nn.Module]:
    """The counted modules that are not inside another one."""
    if module in packed:
        yield module
        return
    for child in module.children():
        yield from outermost(child, packed)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def place_of(tensor: Tensor) -> tuple[int, int, int]:
    """Equal for tensors that are the same region of one storage."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset()), tensor.numel()


def _executed(model: nn.Module, packed: Packed, call: Callable[[], object]) -> int:
    was_training = model.training
    model.eval()
    try:
        # Only the plain form of attention is a matrix product to the counter on every device.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            with _packed_macs(model, packed, counter) as correction:
                call()
            flops: int = counter.get_total_flops()
            return flops // 2 + sum(correction)
    finally:
        model.train(was_training)


@contextmanager
def _packed_macs(model: nn.Module, packed: Packed, counter: FlopCounterMode) -> Iterator[list[int]]:
    """Collect, for each call of a packed module, what its kernel executes less what the counter saw."""
    corrections: list[int] = []
    open_calls: list[tuple[nn.Module, int]] = []

    def enter(module: nn.Module, _: Any) -> None:
        open_calls.append((module, counter.get_total_flops()))

    def leave(module: nn.Module, arguments: tuple[Any, ...], _: Any) -> None:
        _, before = open_calls.pop()
        if not open_calls:  # a packed module inside another is part of it
            seen = (counter.get_total_flops() - before) // 2
            corrections.append(_macs_of(module, packed.get(module), arguments[0].shape) - seen)

    handles = []
    for module in model.modules():
        if isinstance(module, Replacement) and (module in packed or type(module).macs is not Replacement.macs):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
    try:
        yield corrections
    finally:
        for handle in handles:
            handle.remove()


def _macs_of(module: nn.Module, count: WeightCount | None, shape: torch.Size) -> int:
    assert isinstance(module, Replacement)
    executed = module.macs(shape)
    if executed is not None:
        return executed
    assert count is not None, f"{type(module).__name__} defines neither macs nor count"
    return count.weights * (shape.numel() // shape[-1])
