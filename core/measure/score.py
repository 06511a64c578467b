"""Score: a model's per-example results on a split, their interval, and a paired test against a reference."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.measured import Comparison
from core.models.batches import Batch, place
from core.nn.precision import float_dtype
from core.paired_tests import Z, mcnemar
from core.scores import ACCURACY
from core.tasks.base import Task, logits_of

LEVEL = 0.95
SUBSET_SEED = 20_251_122  # which examples `limit` keeps: the same for every model

Examples = dict[str, Tensor]  # quantity -> [N]


@dataclass(frozen=True)
class Interval:
    """A principal score with its 95 % interval, in the score's unit."""

    value: float
    low: float
    high: float


def evaluate(
    model: nn.Module,
    task: Task,
    split: str = "test",
    *,
    device: torch.device,
    batch_size: int = 64,
    limit: int | None = None,
    progress: Callable[[float], None] | None = None,
    watch: Callable[[Batch, Tensor], object] | None = None,
) -> Examples:
    """Per-example quantities [N] on the CPU; `limit` scores a fixed random subset of that many.

    `progress` is called with the share done before each batch and may raise to stop; `watch` gets each batch of the
    split with the model's logits. The model's mode is restored.
    """
    examples = task.split(split)
    indices = scored_indices(len(examples), limit)
    dtype = float_dtype(model)
    parts: list[Examples] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(indices), batch_size):
                if progress is not None:
                    progress(start / len(indices))
                given = examples.batch(indices[start : start + batch_size])
                batch = place(given, device, dtype)
                logits = logits_of(model, batch)
                if watch is not None:
                    watch(given, logits)
                quantities = task.per_example(logits, batch)
                parts.append({key: value.cpu() for key, value in quantities.items()})
    finally:
        model.train(was_training)
    if not parts:
        raise ValueError(f"the split {split!r} of {task.name} has no examples")
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def scored_indices(n_examples: int, limit: int | None) -> Tensor:
    """Which of a split's examples `evaluate` scores, ascending: all, or the same random subset for every model."""
    if limit is None or limit >= n_examples:
        return torch.arange(n_examples)
    order = torch.randperm(n_examples, generator=torch.Generator().manual_seed(SUBSET_SEED))
    return order[:limit].sort().values


def principal(task: Task, examples: Examples) -> float:
    """The task's principal score of these examples."""
    return task.summarize(examples)[task.score.name]


def interval(task: Task, examples: Examples, *, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """95 % percentile-bootstrap interval of the principal score; examples (for text: windows) are resampled.

    If all predictions are right or all are wrong, a bootstrap interval has no width, so Wilson's interval is used.
    """
    value = principal(task, examples)
    sure = _all_alike(task, examples, value)
    if sure is not None:
        return sure
    resampled = [principal(task, _take(examples, rows)) for rows in _resamples(_count(examples), n_resamples, seed)]
    low, high = _percentiles(resampled)
    return Interval(value, low, high)


def paired(
    task: Task, examples: Examples, reference: Examples, *, n_resamples: int = 1000, seed: int = 0
) -> Comparison:
    """How a score differs from its reference's on the same examples: stage - reference, in the score's unit.

    The interval is a paired bootstrap. The p-value is from McNemar's exact test for accuracies,
    else from a permutation test that swaps the two models' results per example (at least 1 / (n + 1)).
    Raises ValueError if the two were not scored on the same number of examples.
    """
    n = _count(examples)
    if _count(reference) != n:
        raise ValueError(f"{n} examples cannot be paired with {_count(reference)}")
    delta = principal(task, examples) - principal(task, reference)
    if not math.isfinite(delta):
        return Comparison(delta, math.nan, math.nan, math.nan)
    deltas = [
        principal(task, _take(examples, rows)) - principal(task, _take(reference, rows))
        for rows in _resamples(n, n_resamples, seed)
    ]
    low, high = _percentiles(deltas)
    if _is_accuracy(task, examples):
        correct, reference_correct = examples["correct"].bool(), reference["correct"].bool()
        p_value = mcnemar(int((correct & ~reference_correct).sum()), int((~correct & reference_correct).sum()))
    else:
        p_value = _swap_test(task, examples, reference, delta, n_resamples, seed)
    return Comparison(delta, low, high, p_value)


def _swap_test(task: Task, examples: Examples, reference: Examples, delta: float, n_swaps: int, seed: int) -> float:
    """Share of random swaps between the two models whose difference is at least the observed one."""
    generator = torch.Generator().manual_seed(seed)
    tolerance = 1e-9 * max(abs(delta), 1e-12)  # a swap of everything is exactly as extreme, up to rounding
    as_extreme = 0
    for _ in range(n_swaps):
        swap = torch.rand(_count(examples), generator=generator) < 0.5  # [N]
        first = {key: torch.where(swap, reference[key], value) for key, value in examples.items()}
        second = {key: torch.where(swap, value, reference[key]) for key, value in examples.items()}
        as_extreme += abs(principal(task, first) - principal(task, second)) >= abs(delta) - tolerance
    return (1 + as_extreme) / (1 + n_swaps)


def _all_alike(task: Task, examples: Examples, value: float) -> Interval | None:
    if not _is_accuracy(task, examples):
        return None
    correct = examples["correct"]
    if bool((correct != correct[0]).any()):
        return None
    doubt = Z**2 / (len(correct) + Z**2)
    if bool(correct[0]):
        return Interval(value, value * (1 - doubt), value)
    best = principal(task, {**examples, "correct": torch.ones_like(correct)})
    return Interval(value, value, best * doubt)


def _is_accuracy(task: Task, examples: Examples) -> bool:
    return task.score.name == ACCURACY.name and "correct" in examples


def _count(examples: Examples) -> int:
    return len(next(iter(examples.values())))


def _take(examples: Examples, rows: Tensor) -> Examples:
    return {key: value.index_select(0, rows) for key, value in examples.items()}


def _resamples(n: int, n_resamples: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_resamples):
        yield torch.randint(n, (n,), generator=generator)


def _percentiles(values: list[float]) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return float(low), float(high)
