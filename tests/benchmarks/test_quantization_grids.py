"""The comparison of symmetric grids: KL by hand, and the grid that it compares with."""

import math

import pytest
import torch

from benchmarks.quantization_grids import mean_kl, narrow_min_max


def test_kl_by_hand():
    uniform, sure = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert mean_kl([uniform], iter([sure])) == pytest.approx(by_hand)
    assert mean_kl([uniform, uniform], iter([sure, uniform])) == pytest.approx(by_hand / 2)


def test_the_narrow_grid_never_uses_its_smallest_code():
    grid = narrow_min_max(torch.tensor([[-6.0, 3.0]]), 3, symmetric=True)
    assert grid.scale.tolist() == [[2.0]]
    assert grid.nearest(torch.tensor([[-6.0, -100.0, 3.1, 100.0]])).tolist() == [[-6, -6, 4, 6]]
