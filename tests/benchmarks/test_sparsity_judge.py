"""The comparison's verdicts: seeds are the units, examples are paired within them."""

import pytest
import torch

from benchmarks.sparsity.judge import judge


def losses(seed: int, shift: float = 0.0, noise: float = 1.0) -> torch.Tensor:
    return shift + noise * torch.randn(500, generator=torch.Generator().manual_seed(seed))


def test_a_shift_beyond_the_noise_of_seeds_is_seen_and_signed():
    better = [losses(seed) for seed in range(5)]
    worse = [loss + 0.1 + 0.01 * seed for seed, loss in enumerate(better)]
    verdict = judge(better, worse)
    assert verdict.difference == pytest.approx(0.12, abs=1e-6)
    assert verdict.low == pytest.approx(0.12 - 2.776445 * 0.0158114 / 5**0.5, abs=1e-5)  # t of 4 degrees of freedom
    assert (verdict.seeds_for, verdict.words) == (5, "as expected")
    assert judge(worse, better).words == "THE OTHER WAY ROUND"


def test_what_differs_in_each_seed_but_not_on_the_whole_is_undecided():
    better = [losses(seed) for seed in range(4)]
    worse = [loss + shift for loss, shift in zip(better, (0.5, -0.5, 0.4, -0.4), strict=True)]
    verdict = judge(better, worse)
    assert verdict.words == "undecided"
    assert (verdict.seeds_for, verdict.seeds_against) == (2, 2)


def test_one_seed_is_judged_by_its_examples():
    verdict = judge([losses(0)], [losses(0) + losses(1, shift=0.5)])
    assert verdict.p_value < 0.01
    assert judge([losses(0)], [losses(0)]).p_value == 1.0
