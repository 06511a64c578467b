"""Fidelity of embeddings: by hand, against a slow oracle, and under changes that keep cosines or neighbours."""

import pytest
import torch
from torch import Tensor, nn

from core.measure.embedding_fidelity import EmbeddingMeter, neighbours_kept
from core.measure.fidelity import Incomparable


class Table(nn.Module):
    """A vector for each text, whose only token is its number."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.vectors[input_ids[..., 0]]


def random_vectors(count: int = 60, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def measured(before: Tensor, after: Tensor, ids: Tensor | None = None) -> EmbeddingMeter:
    """A meter after batches of 16 texts [N, 1] (or of pairs [N, 2, 1])."""
    meter = EmbeddingMeter(Table(before), torch.device("cpu"))
    ids = torch.arange(len(before))[:, None] if ids is None else ids
    stage = Table(after)
    for part in ids.split(16):
        batch = {"input_ids": part, "attention_mask": torch.ones_like(part)}
        meter.watch({**batch, "labels": part}, stage(**batch).detach())
    return meter


def oracle(before: Tensor, after: Tensor, row: int) -> float:
    """Percent of a row's ten nearest that stay, by sorting every cosine in float64."""
    nearest = []
    for vectors in (before.double(), after.double()):
        cosines = {
            other: float(vectors[row] @ vectors[other] / vectors[row].norm() / vectors[other].norm())
            for other in range(len(vectors))
            if other != row
        }
        nearest.append(set(sorted(cosines, key=cosines.__getitem__)[-10:]))
    return 10.0 * len(nearest[0] & nearest[1])


def test_neighbours_are_those_of_a_slow_oracle(monkeypatch):
    monkeypatch.setattr("core.measure.embedding_fidelity.ROWS", 7)
    before = random_vectors()
    after = before + 0.5 * random_vectors(seed=1)
    expected = [oracle(before, after, row) for row in range(len(before))]
    assert neighbours_kept(before, after).tolist() == pytest.approx(expected)


def test_cosine_is_the_mean_and_minimum_over_texts():
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    after = torch.tensor([[5.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    meter = measured(before, after)
    found = meter.result()
    assert found.cosine == pytest.approx((1 + 0.8 + 0) / 3) and found.cosine_min == pytest.approx(0)
    assert meter.examples()["cosine"].tolist() == pytest.approx([1, 0.8, 0])
    assert found.neighbours_kept is None  # three texts have no ten neighbours


def test_a_rotation_keeps_neighbours_and_a_scaling_both():
    before = random_vectors()
    rotation, _ = torch.linalg.qr(random_vectors(5, 5, seed=2))
    rotated, scaled = measured(before, before @ rotation).result(), measured(before, 3 * before).result()
    assert rotated.neighbours_kept == 100 and rotated.cosine < 0.9
    assert scaled.neighbours_kept == 100 and scaled.cosine == pytest.approx(1)
    shuffled = measured(before, random_vectors(seed=3)).result()
    assert shuffled.neighbours_kept == pytest.approx(100 * 10 / 59, abs=6)  # by chance
    assert shuffled.neighbours_kept_low < shuffled.neighbours_kept < shuffled.neighbours_kept_high


def test_a_pair_counts_as_two_texts_and_a_text_that_comes_again_has_one_place_among_neighbours():
    before = random_vectors(40)
    after = before + 0.5 * random_vectors(40, seed=1)
    pairs = torch.stack([torch.arange(40), torch.arange(40).flip(0)], dim=1)[:, :, None]  # each text twice
    single, twice = measured(before, after).result(), measured(before, after, pairs).result()
    assert twice.cosine == pytest.approx(single.cosine)
    assert twice.neighbours_kept == pytest.approx(single.neighbours_kept)
    assert measured(before, after, pairs).examples()["cosine"].shape == (40,)


def test_embeddings_of_other_widths_are_not_compared():
    meter = measured(random_vectors(30, 5), random_vectors(30, 4))
    with pytest.raises(Incomparable, match="4 numbers, the reference's 5"):
        meter.result()
    broken = random_vectors(30)
    broken[3, 1] = torch.nan
    with pytest.raises(Incomparable, match="not finite"):
        measured(random_vectors(30), broken).result()
