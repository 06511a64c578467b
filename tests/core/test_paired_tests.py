"""Paired differences: by hand, against the bootstrap of `core/measure/score.py`, and by simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from core.measure import score
from core.paired_tests import holm, paired
from core.rank_correlation import spearman, spearman_influence
from core.tasks.base import Score


def correct(*answers: int) -> dict[str, np.ndarray]:
    return {"correct": np.array(answers, dtype=np.float32)}


def test_accuracy_by_hand():
    found = paired("accuracy", correct(1, 1, 1, 0, 1), correct(1, 0, 0, 0, 1))
    assert found.delta == pytest.approx(40.0)
    error = 100 * math.sqrt((2 * 0.6**2 + 3 * 0.4**2) * 5 / 4) / 5
    assert found.high - found.delta == pytest.approx(1.959964 * error)
    assert found.p_value == pytest.approx(0.5)  # two gained, none lost: 2 * 0.5 ** 2


def test_bits_per_character_is_a_ratio_of_sums():
    characters = np.array([10.0, 30.0])
    mine = {"nats": np.array([8.0, 20.0]), "characters": characters}
    base = {"nats": np.array([9.0, 21.0]), "characters": characters}
    found = paired("bits per character", mine, base)
    assert found.delta == pytest.approx(-2 / 40 / math.log(2))
    residuals = np.array([-1 + 0.5, -1 + 1.5])
    assert found.high - found.delta == pytest.approx(1.959964 * math.sqrt(2 * (residuals**2).sum()) / 40 / math.log(2))


def test_answer_accuracy_counts_answers_not_sequences():
    tokens = np.array([4.0, 8.0])
    mine, base = ({"correct": np.array(right), "tokens": tokens} for right in ([4.0, 5.0], [1.0, 5.0]))
    assert paired("answer accuracy", mine, base).delta == pytest.approx(100 * 3 / 12)


def test_equal_models_do_not_differ_and_others_are_refused():
    assert paired("accuracy", correct(1, 0), correct(1, 0)).p_value == 1.0
    with pytest.raises(ValueError, match="same examples"):
        paired("accuracy", correct(1, 0), correct(1, 0, 1))
    other = {"nats": np.ones(2), "characters": np.array([1.0, 2.0])}
    with pytest.raises(ValueError, match="same examples"):
        paired("bits per character", other, {**other, "characters": np.array([2.0, 2.0])})
    with pytest.raises(ValueError, match="no paired test"):
        paired("perplexity", other, other)


class Accuracy:
    score = Score("accuracy", "%", higher_is_better=True)

    def summarize(self, examples: dict[str, torch.Tensor]) -> dict[str, float]:
        return {"accuracy": 100 * float(examples["correct"].double().mean())}


def test_it_agrees_with_the_bootstrap_that_workers_take():
    generator = np.random.default_rng(0)
    base = (generator.random(2000) < 0.8).astype(np.float32)
    mine = np.where(generator.random(2000) < 0.1, 1 - base, base).astype(np.float32)
    found = paired("accuracy", {"correct": mine}, {"correct": base})
    slow = score.paired(Accuracy(), {"correct": torch.tensor(mine)}, {"correct": torch.tensor(base)})
    assert found.p_value == pytest.approx(slow.p_value, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((slow.low, slow.high), abs=0.2)


def test_intervals_cover_and_false_claims_keep_their_level():
    generator = np.random.default_rng(1)
    covered = claimed = 0
    for _ in range(1000):
        characters = generator.integers(50, 100, 300).astype(float)
        both = generator.normal(1.0, 0.3, 300)
        mine, base = (characters * (both + generator.normal(0, 0.1, 300)) for _ in range(2))
        found = paired(
            "bits per character", {"nats": mine, "characters": characters}, {"nats": base, "characters": characters}
        )
        covered += found.low <= 0 <= found.high
        claimed += found.p_value < 0.05
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)
    assert claimed / 1000 == pytest.approx(0.05, abs=0.02)


def test_mcnemar_claims_at_most_its_level():
    generator = np.random.default_rng(2)
    draws = (generator.random((2, 2000, 400)) < 0.9).astype(np.float32)
    p_values = [paired("accuracy", {"correct": a}, {"correct": b}).p_value for a, b in zip(*draws, strict=True)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) <= 0.055


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def ranked(noise: float, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    score = generator.normal(size=400).round(1)  # with ties
    return {"similarity": score + noise * np.random.default_rng(seed).normal(size=400), "score": score}


def test_rank_correlations_agree_with_the_bootstrap():
    mine, base = ranked(0.8, 1), ranked(1.0, 2)
    found = paired("Spearman correlation", mine, base)
    generator = np.random.default_rng(0)
    deltas = [
        100 * (spearman(mine["similarity"][rows], mine["score"][rows])
               - spearman(base["similarity"][rows], base["score"][rows]))
        for rows in (generator.integers(400, size=400) for _ in range(800))
    ]  # fmt: skip
    assert found.delta == pytest.approx(100 * (spearman(**columns(mine)) - spearman(**columns(base))))
    assert found.high - found.delta == pytest.approx(1.96 * np.std(deltas), rel=0.1)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(found.delta) / np.std(deltas)), abs=0.03)


def columns(examples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"x": examples["similarity"], "y": examples["score"]}


def test_influences_are_those_of_leaving_an_example_out():
    examples = columns(ranked(1.0, 3))
    value, influence = spearman_influence(**examples)
    assert value == pytest.approx(stats.spearmanr(*examples.values()).statistic)
    left_out = [spearman(*(np.delete(column, row) for column in examples.values())) for row in range(400)]
    pseudo = 400 * value - 399 * np.array(left_out)
    assert np.allclose(influence, pseudo - pseudo.mean(), atol=0.02)


def test_scores_of_other_pairs_and_constant_cosines():
    mine = ranked(1.0, 1)
    with pytest.raises(ValueError, match="same examples"):
        paired("Spearman correlation", mine, {**mine, "score": mine["score"][::-1]})
    constant = {**mine, "similarity": np.ones(400)}
    assert paired("Spearman correlation", constant, constant).p_value == 1.0


def test_a_mean_cosine_is_tested_by_its_size_not_by_its_sign():
    base = np.full(50, 0.95)
    mine = base + 0.001  # most texts gain a little, few lose much: the mean hardly changes
    mine[:5] = 0.941
    found = paired("cosine with the reference", {"cosine": mine}, {"cosine": base})
    assert found.delta == pytest.approx(0, abs=1e-9) and found.p_value == pytest.approx(1)
