"""Sequential calibration: part after part of a model on the outputs of the parts before, as they have been changed.

Paper: https://arxiv.org/abs/2210.17323, section 4 (GPTQ goes block by block, quantized blocks giving the inputs
of the next; SparseGPT and Wanda prune so). Memory holds the hidden states between two blocks, never those of the
whole model; where blocks are to be reconstructed (https://arxiv.org/abs/2102.05426), also those that the unchanged
blocks give.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from core.calibration.block import Batch, CalibrationBlock, Reports, WalkPlace
from core.calibration.coverage import Coverage
from core.calibration.hidden_states import HiddenStates, without_cache
from core.calibration.order import WalkPart, find_order
from core.nn.tokens.sizes import moved

MAX_TOKENS = 8192  # of a batch: bounds what a block's inner activations take


class Finished(Protocol):
    """Keeps finished parts of a walk, and has those of an earlier attempt (`core.algorithms.finished_blocks`)."""

    def restore(self, modules: Sequence[str]) -> bool: ...

    def save(self, modules: Sequence[str], layers: Sequence[str]) -> None: ...


def walk(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: Collection[str],
    record: Reports,
    device: torch.device,
    *,
    coverage: Coverage | None = None,
    batch_size: int | None = None,
    targets: bool = False,
    finished: Finished | None = None,
) -> Iterator[CalibrationBlock]:
    """The model's blocks in the order of execution, with those of `layers` (full names) that each holds.

    `coverage` takes note of what the layers see. What is done to a block before the next one is asked for is in the
    next one's inputs. Layers outside of blocks, and those of models whose blocks are not known, are walked group by
    group, with the whole model's forward pass as far as their inputs. `batch_size` is the most examples of a batch;
    with `targets` blocks have the outputs that they gave before any change to the model. What `finished` has is put
    back, and not walked again.
    """
    batches = [piece for batch in batches for piece in _pieces(batch, batch_size)]
    was_training = model.training
    model.eval()
    try:
        with without_cache(model):
            order = find_order(model, {key: value[:1] for key, value in batches[0].items()}, layers)
        begin = partial(HiddenStates, model, batches, order.extras, device, keep_originals=targets)
        for block in _walk_parts(model, order.parts, batches, record, coverage, begin, targets):
            yield from _unfinished(block, finished)
    finally:
        model.train(was_training)


def _walk_parts(
    model: nn.Module,
    parts: Sequence[WalkPart],
    batches: Sequence[Batch],
    record: Reports,
    coverage: Coverage | None,
    begin: Callable[[], HiddenStates],
    targets: bool,
) -> Iterator[CalibrationBlock]:
    """Every part that holds layers. What is before the blocks may change until `begin` makes their hidden states."""
    hidden: HiddenStates | None = None
    last = max((i for i, part in enumerate(parts) if part.is_block), default=-1)
    for index, part in enumerate(parts):
        place = WalkPlace(record, index, len(parts), part.name)
        place.report()
        if not part.is_block:
            yield CalibrationBlock(model, part, batches, place, coverage=coverage)
            continue
        hidden = hidden or begin()
        outputs = list(_originals(hidden, part.name, place)) if targets else None
        if part.groups:
            yield CalibrationBlock(model, part, batches, place, hidden, outputs, coverage)
        for i in range(len(batches) if index < last else 0):
            place.report(1.0)
            hidden.advance(part.name, i)
        hidden.originals = outputs or hidden.originals


def _unfinished(block: CalibrationBlock, finished: Finished | None) -> Iterator[CalibrationBlock]:
    """The block, unless it is finished; afterwards it is."""
    layers = [name for group in block.groups for name in group]
    modules = [block.name] if block.is_block else layers
    if finished is None:
        yield block
    elif not finished.restore(modules):
        yield block
        finished.save(modules, layers)


def _originals(hidden: HiddenStates, name: str, place: WalkPlace) -> Iterator[Tensor]:
    """The outputs of a block that is still unchanged, on what the unchanged blocks before it gave."""
    for index in range(len(hidden.originals)):
        place.report()
        yield moved(hidden.run(name, index, original=True), "cpu")


def _pieces(batch: Batch, batch_size: int | None = None) -> Iterator[Batch]:
    """Batches of at most MAX_TOKENS tokens and `batch_size` examples each."""
    tokens = batch.get("input_ids")
    n_examples = len(next(iter(batch.values())))
    size = n_examples if tokens is None else max(1, MAX_TOKENS // tokens[0].numel())
    size = min(size, batch_size or n_examples)
    for start in range(0, n_examples, size):
        yield {key: value[start : start + size] for key, value in batch.items()}
