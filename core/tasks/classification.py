"""Scores of classification, independent of the type of input."""

import torch
from torch import Tensor
from torch.nn import functional as F

from core.scores import ACCURACY, BALANCED_ACCURACY, CROSS_ENTROPY, PERCENT, Score
from core.tasks.base import labels_of


class Classification:
    """Loss and scores of tasks whose logits are [B, n_classes] and whose labels are [B]."""

    score: Score = ACCURACY

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy of the examples, in nats."""
        return F.cross_entropy(logits.float(), labels_of(batch))

    def per_example(self, logits: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of each example [B]: `correct` (0 or 1), `nats` (its cross entropy), `label` and `predicted` classes."""
        labels, predicted = batch["labels"], logits.argmax(dim=-1)
        return {
            "correct": (predicted == labels).float(),
            "nats": F.cross_entropy(logits.float(), labels, reduction="none"),
            "label": labels,
            "predicted": predicted,
        }

    def summarize(self, examples: dict[str, Tensor]) -> dict[str, float]:
        """Accuracy and balanced accuracy (mean over the classes present) in %, cross entropy in nats."""
        correct, label = examples["correct"].double(), examples["label"].long()
        of_class = torch.zeros(int(label.max()) + 1, dtype=torch.double).index_add(0, label.cpu(), correct.cpu())
        n_of_class = label.cpu().bincount(minlength=len(of_class))
        present = n_of_class > 0
        return {
            ACCURACY.name: ACCURACY.of_sums(correct.sum().item(), len(correct)),
            BALANCED_ACCURACY.name: PERCENT * (of_class[present] / n_of_class[present]).mean().item(),
            CROSS_ENTROPY.name: examples["nats"].double().mean().item(),
        }
