"""Fidelity of embeddings: their cosines with the reference's, and the neighbours of each text that are kept.

Neighbours are those with the largest cosine among the other distinct test texts. Keeping them is what search relies on:
a rotation of all vectors keeps every neighbour, and lowers every cosine.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.measure.fidelity import Incomparable, mean_interval
from core.measured import Fidelity
from core.models.batches import Batch, place
from core.nn.precision import float_dtype
from core.scores import PERCENT
from core.tasks.base import inputs, logits_of

NEIGHBOURS = 10
FEWEST_TEXTS = 2 * NEIGHBOURS  # with fewer, most texts are neighbours of each other
ROWS = 1024  # of similarities at a time


class EmbeddingMeter:
    """Observes the scoring of a stage, runs its reference on the same batches, and keeps both models' embeddings."""

    def __init__(self, reference: nn.Module, device: torch.device):
        self.reference, self.device = reference.eval(), device
        self._of_reference: list[Tensor] = []  # of a batch [B, 1 or 2, D]
        self._of_stage: list[Tensor] = []
        self._texts: list[bytes] = []  # the tokens of each text

    def watch(self, batch: Batch, embeddings: Tensor) -> None:
        """Add a batch of a split with the stage's embeddings [B, D], or [B, 2, D] of pairs, on the device."""
        with torch.inference_mode():
            expected = logits_of(self.reference, inputs(place(batch, self.device, float_dtype(self.reference))))
        for found, kept in ((expected, self._of_reference), (embeddings, self._of_stage)):
            kept.append(found.float().cpu().view(len(found), -1, found.shape[-1]))
        ids, masks = (batch[name].flatten(0, -2) for name in ("input_ids", "attention_mask"))
        self._texts += [row[mask.bool()].numpy().tobytes() for row, mask in zip(ids, masks, strict=True)]

    def examples(self) -> dict[str, Tensor]:
        """The cosine of each example with the reference [N]; of a pair the mean of both texts'."""
        return {"cosine": self._cosines().mean(dim=1)}

    def result(self) -> Fidelity:
        """Fidelity over all observed batches; raises Incomparable if embeddings are not finite."""
        cosines = self._cosines()  # [N, 1 or 2]
        if not bool(cosines.isfinite().all()):
            raise Incomparable("an embedding is not finite")
        low, high = mean_interval(
            cosines.sum(1).double().numpy(), torch.full((len(cosines),), cosines.shape[1]).numpy()
        )
        kept = self._neighbours_kept()
        kept_low, kept_high = (
            (None, None) if kept is None else mean_interval(kept.numpy(), torch.ones(len(kept)).numpy())
        )
        return Fidelity(
            cosine=float(cosines.mean()),
            cosine_low=low,
            cosine_high=high,
            cosine_min=float(cosines.min()),
            neighbours_kept=None if kept is None else float(kept.mean()),
            neighbours_kept_low=kept_low,
            neighbours_kept_high=kept_high,
        )

    def _cosines(self) -> Tensor:
        before, after = torch.cat(self._of_reference), torch.cat(self._of_stage)
        if before.shape[-1] != after.shape[-1]:
            raise Incomparable(f"embeddings have {after.shape[-1]} numbers, the reference's {before.shape[-1]}")
        return F.cosine_similarity(before.double(), after.double(), dim=-1).clamp(-1, 1)

    def _neighbours_kept(self) -> Tensor | None:
        """Percent of each distinct text's neighbours that are kept [M]; None for too few texts."""
        first = list(dict(reversed([(text, row) for row, text in enumerate(self._texts)])).values())[::-1]
        if len(first) < FEWEST_TEXTS:
            return None
        before, after = (
            torch.cat(kept).flatten(0, 1)[torch.tensor(first)] for kept in (self._of_reference, self._of_stage)
        )
        return neighbours_kept(before.to(self.device), after.to(self.device)).cpu()


def neighbours_kept(before: Tensor, after: Tensor) -> Tensor:
    """Percent of the NEIGHBOURS nearest by cosine that are the same before [M, D] and after [M, D'], in float64 [M]."""
    before, after = F.normalize(before, dim=-1), F.normalize(after, dim=-1)
    found = []
    for start in range(0, len(before), ROWS):
        was, now = (_nearest(vectors, start) for vectors in (before, after))
        found.append((was[:, :, None] == now[:, None, :]).any(dim=2).double().mean(dim=1))
    return PERCENT * torch.cat(found)


def _nearest(vectors: Tensor, start: int) -> Tensor:
    """Indices of the nearest of each of ROWS vectors from `start`, without itself [rows, NEIGHBOURS]."""
    similarity = vectors[start : start + ROWS] @ vectors.T
    rows = torch.arange(len(similarity), device=vectors.device)
    similarity[rows, rows + start] = -torch.inf
    return similarity.topk(NEIGHBOURS, dim=1).indices
