"""Static ranges by each estimator, on activations whose best range is known."""

import pytest
import torch

from core.algorithms.activation_ranges import static_range
from core.calibration.activations import EMA_WEIGHT, SAMPLE, ActivationValues
from core.nn.activation_quantizer import activation_grid


def values_of(*batches):
    values = ActivationValues()
    for batch in batches:
        values.add(batch[None])
    return values


def error(values, observer, bits, symmetric):
    grid = activation_grid(*static_range(values, observer, bits, symmetric), bits, symmetric)
    return (grid.nearest(values.sample) - values.sample).square().mean().item()


def test_extremes_and_their_moving_average_by_hand():
    values = values_of(torch.tensor([[-1.0, 2.0]]), torch.tensor([[-3.0, 1.0], [0.0, 0.5]]))
    assert [end.item() for end in static_range(values, "min-max", 8, True)] == [-3, 2]
    expected = [-1 + EMA_WEIGHT * (-3 + 1), 2 + EMA_WEIGHT * (1 - 2)]
    assert [end.item() for end in static_range(values, "ema", 8, True)] == pytest.approx(expected)


def test_percentiles_leave_out_the_same_share_at_both_ends():
    values = values_of(torch.arange(-500.0, 501.0)[:, None])
    low, high = static_range(values, "percentile", 8, False, 99.0)
    assert (low.item(), high.item()) == (-490, 490)
    assert static_range(values, "percentile", 8, False, 100.0)[1].item() == 500


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_least_error_is_at_most_that_of_the_extremes(bits, symmetric):
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(bits)).mul(2)
    x[3, 5] = 60.0
    values = values_of(x)
    assert error(values, "mse", bits, symmetric) <= error(values, "min-max", bits, symmetric)
    if bits == 4:
        assert error(values, "mse", bits, symmetric) < 0.5 * error(values, "min-max", bits, symmetric)


@pytest.mark.parametrize("observer", ["min-max", "ema", "percentile", "mse"])
def test_constant_inputs_have_a_usable_range(observer):
    for constant in (0.0, 4.0):
        values = values_of(torch.full((4, 3), constant))
        grid = activation_grid(*static_range(values, observer, 8, False), 8, False)
        assert torch.allclose(grid.nearest(values.sample), values.sample, rtol=0.01)


def test_the_sample_is_spread_over_all_vectors_and_bounded():
    d = 512
    values = values_of(*(torch.full((100, d), float(index)) for index in range(40)))
    kept = values.sample[:, 0]
    assert values.count == 4000
    assert len(kept) <= SAMPLE // d and len(kept) > SAMPLE // d // 4
    counts = torch.bincount(kept.long(), minlength=40)
    assert counts.max() - counts.min() <= 1
    assert values.value.tolist() == [[0, 39]]
