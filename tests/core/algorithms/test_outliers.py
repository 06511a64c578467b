"""Profiles of weights and inputs."""

import pytest
import torch

from core.algorithms.outliers import InputProfile, joined, profile_of
from core.allocation.histograms import BINS, REACH


def test_a_profile_by_hand():
    found = profile_of(torch.tensor([[3.0, -4.0], [0.0, 0.0]]))
    assert (found.number, found.rms, found.largest) == (4, 2.5, 4.0)
    assert found.outlier_ratio == pytest.approx(1.6)
    assert sum(found.histogram) == 4
    assert found.histogram[BINS // 2] == 2  # the zeros


def test_bins_are_in_root_mean_squares_and_count_what_lies_beyond():
    torch.manual_seed(0)
    values = torch.randn(100_000)
    values[7] = 50.0
    found = profile_of(values)
    assert found.outlier_ratio > 40
    assert found.histogram[-1] == 1
    width = 2 * REACH / BINS
    expected = torch.erf(torch.tensor(width / 2 / found.rms / 2**0.5)) * 1e5
    assert found.histogram[BINS // 2] == pytest.approx(float(expected), rel=0.05)


def test_batches_add_up():
    torch.manual_seed(0)
    rows = torch.randn(2, 30, 5)
    whole, parts = InputProfile(), InputProfile()
    whole.add(rows)
    for piece in rows.split(10, dim=1):
        parts.add(piece)
    once, together = joined(whole.value), joined(parts.value)
    assert parts.count == 30
    assert together.rms == pytest.approx(once.rms)
    assert (together.number, together.largest) == (once.number, once.largest)
    assert sum(together.histogram) == 300


def test_values_of_nothing_but_zeros_have_no_outliers():
    found = profile_of(torch.zeros(4, 4))
    assert found.outlier_ratio == 0
    assert found.histogram[BINS // 2] == 16
