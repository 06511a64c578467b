"""What is summed over inputs, by hand."""

import pytest
import torch

from core.calibration import Hessian, InputNorms

ROWS = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [0.0, 2.0]]])  # [groups, n, d]


def test_norms_by_hand_in_two_batches():
    norms = InputNorms()
    norms.add(ROWS[:, :1])
    norms.add(ROWS[:, 1:])
    assert norms.count == 3
    assert torch.allclose(norms.value, torch.tensor([[10.0, 8.0]]).sqrt())


def test_the_hessian_is_twice_the_mean_product_by_hand():
    hessian = Hessian()
    hessian.add(ROWS[:, :2])
    hessian.add(ROWS[:, 2:])
    assert torch.allclose(hessian.value, torch.tensor([[[10.0, 2.0], [2.0, 8.0]]]) * 2 / 3)


def test_sums_of_half_precision_inputs_are_not_rounded_to_it():
    rows = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    norms, hessian = InputNorms(), Hessian()
    for _ in range(2):
        norms.add(rows)
        hessian.add(rows)
    assert norms.value.item() == pytest.approx(8192**0.5)
    assert hessian.value.item() == 2.0


def test_float64_stays_float64():
    hessian = Hessian()
    hessian.add(ROWS.double())
    assert hessian.value.dtype == torch.float64
