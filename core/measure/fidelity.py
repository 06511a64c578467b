"""Fidelity: how close a stage's predictions are to its reference's on the same test examples.

The divergence is KL(reference ‖ stage) = Σ_c p_ref(c) (ln p_ref(c) - ln p_stage(c)) in nats, one per prediction, as
llama.cpp reports it. Flips are predictions that change between right and wrong (Dutta et al., "Accuracy is Not All You
Need", 2024). Both models process each batch in turn, so only logits of one part of a batch are in memory.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from core.measured import Fidelity
from core.models.batches import Batch, place
from core.nn.precision import float_dtype
from core.scores import PERCENT
from core.tasks.base import logits_of
from core.tasks.windows import IGNORED

REFERENCE_LOGITS = 2**24  # of the reference at a time
DIVERGED_LOGITS = 2**21  # in float64 at a time
QUANTILE = 0.99
RESAMPLES = 1000


class Incomparable(ValueError):
    """The reason why a stage has no fidelity to its reference."""


class FidelityMeter:
    """Observes the scoring of a stage, runs its reference on the same batches, and accumulates the differences."""

    def __init__(self, reference: nn.Module, device: torch.device):
        self.reference, self.device = reference.eval(), device
        self.problem = ""  # why the two cannot be compared
        self._divergences: list[Tensor] = []  # of the predictions of a part of a batch [P]
        self._examples: list[Tensor] = []  # [B, 5]: sums over each example's predictions, as `_sums` orders them

    def watch(self, batch: Batch, logits: Tensor) -> None:
        """Add a batch of a split with the stage's logits [B, ..., C] on the device."""
        with torch.inference_mode():
            for part, of_stage in _parts(place(batch, self.device, float_dtype(self.reference)), logits):
                of_reference = logits_of(self.reference, part)
                if of_reference.shape != of_stage.shape:
                    shapes = f"{list(of_reference.shape)} and {list(of_stage.shape)}"
                    self.problem = f"the logits of the reference and the stage have different shapes: {shapes}"
                    return
                labels = part["labels"]
                kl = divergences(of_reference.flatten(0, -2), of_stage.flatten(0, -2)).view_as(labels)
                self._divergences.append(kl[labels != IGNORED].float().cpu())
                self._examples.append(_sums(kl, of_reference, of_stage, labels).cpu())

    def examples(self) -> dict[str, Tensor]:
        """Quantities of each example that need the reference: none, a prediction has its own score."""
        return {}

    def result(self) -> Fidelity:
        """Fidelity over all observed batches; raises Incomparable if there is none."""
        if self.problem:
            raise Incomparable(self.problem)
        kl, total, agree, lost, gained = torch.cat(self._examples).double().numpy().T
        n = total.sum()
        if not math.isfinite(kl.sum()):
            raise Incomparable(f"the KL divergence to the reference is {kl.sum()}")
        low, high = mean_interval(kl, total)
        single = torch.cat(self._divergences).numpy()
        return Fidelity(
            kl=float(kl.sum() / n),
            kl_low=low,
            kl_high=high,
            kl_p99=float(np.quantile(single, QUANTILE)),
            top1_agreement=float(PERCENT * agree.sum() / n),
            right_to_wrong=float(PERCENT * lost.sum() / n),
            wrong_to_right=float(PERCENT * gained.sum() / n),
            kl_max=float(single.max()),
        )


def _parts(batch: Batch, logits: Tensor) -> Iterator[tuple[Batch, Tensor]]:
    """The batch in parts whose logits are small enough to be held twice."""
    rows = max(1, REFERENCE_LOGITS // logits[0].numel())
    for start in range(0, len(logits), rows):
        end = start + rows
        yield {name: value[start:end] for name, value in batch.items()}, logits[start:end]


def divergences(reference: Tensor, stage: Tensor) -> Tensor:
    """KL(reference ‖ stage) in nats [R] of rows of logits [R, C]; computed in float64, a bounded number at a time."""
    rows = max(1, DIVERGED_LOGITS // reference.shape[-1])
    starts = range(0, len(reference), rows)
    return torch.cat([_divergence(reference[at : at + rows], stage[at : at + rows]) for at in starts])


def _divergence(reference: Tensor, stage: Tensor) -> Tensor:
    p, q = (logits.double().log_softmax(dim=-1) for logits in (reference, stage))
    terms = torch.where(p.isneginf(), 0.0, p.exp() * (p - q))  # what the reference excludes adds nothing
    return terms.sum(dim=-1).clamp(min=0.0)


def _sums(kl: Tensor, reference: Tensor, stage: Tensor, labels: Tensor) -> Tensor:
    """Of each example [B, 5]: its divergences' sum, its predictions, those that agree, right → wrong, wrong → right."""
    counted = labels != IGNORED
    before, after = reference.argmax(dim=-1), stage.argmax(dim=-1)
    was_right, is_right = before == labels, after == labels
    columns = (kl, torch.ones_like(kl), before == after, was_right & ~is_right, ~was_right & is_right)
    return torch.stack([torch.where(counted, column, 0).double().view(len(labels), -1).sum(1) for column in columns], 1)


def mean_interval(sums: np.ndarray, total: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """95 % percentile-bootstrap interval of a mean, from each example's sum [N] and number of values [N].

    Examples (for text: windows) are resampled as wholes.
    """
    if len(sums) < 2:
        return None, None
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for at in range(RESAMPLES):
        rows = generator.integers(len(sums), size=len(sums))
        means[at] = sums[rows].sum() / total[rows].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
