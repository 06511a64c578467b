"""How far the predictions of a changed model are from its own earlier ones, on calibration batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.measure.fidelity import divergences
from core.tasks.base import Task, logits_of
from core.tasks.windows import IGNORED

MOST_LOGITS = 2**28  # of the unchanged model, kept in the host's memory: 1 GiB

Batch = dict[str, Tensor]


class Change(NamedTuple):
    """Mean KL(before ‖ now) over predictions in nats, and the increase of the loss (None: not asked for)."""

    kl: float
    loss: float | None


class CalibrationComparison:
    """The predictions of a model as it is now, for comparison with what later changes make of it.

    Where there are too many to keep, every n-th prediction is. `tick` is called after each batch, and may stop the run.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        task: Task | None = None,
        *,
        tick: Callable[[], None] = lambda: None,
    ):
        self.model, self.batches, self.task, self.tick = model, batches, task, tick
        self._predictions = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
        self._before: list[Tensor] = []
        self._loss = 0.0
        for batch, found, loss in self._run():
            self._before.append(found.cpu())
            self._loss += len(batch["labels"]) * loss

    def compare(self) -> Change:
        """The difference of the model's predictions now; what is not finite stays so."""
        kl = loss_now = 0.0
        n_predictions = n_examples = 0
        for before, (batch, found, loss) in zip(self._before, self._run(), strict=True):
            each = divergences(before.to(found.device), found)
            kl += float(each.sum())
            n_predictions += len(each)
            n_examples += len(batch["labels"])
            loss_now += len(batch["labels"]) * loss
        increase = None if self.task is None else (loss_now - self._loss) / n_examples
        return Change(kl / max(1, n_predictions), increase)

    def _run(self) -> Iterator[tuple[Batch, Tensor, float]]:
        """Each batch with the logits of its predictions [P, C] and its loss."""
        for batch in self.batches:
            with torch.inference_mode():
                logits, labels = logits_of(self.model, batch), batch["labels"]
                loss = 0.0 if self.task is None else float(self.task.loss(logits, batch))
                stride = max(1, -(-self._predictions * logits.shape[-1] // MOST_LOGITS))
                found = logits[labels != IGNORED][::stride]
            yield batch, found, loss
            self.tick()
