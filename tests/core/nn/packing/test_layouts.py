"""Layouts of sparse places: sizes by hand, every mask back again, and the smallest one chosen."""

import math

import pytest
import torch

from core.nn.packing import NM, Bitmap, EliasFano, make_layout, rows_of, smallest_layout, weight_from_rows
from core.nn.packing.nm import pattern_bits, rank, unrank


def random_mask(rows: int, columns: int, density: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(round(rows * columns * (1 + density)))
    return torch.rand(rows, columns, generator=generator) < density


def nm_mask(rows: int, columns: int, n: int, m: int) -> torch.Tensor:
    scores = torch.rand(rows, columns // m, m, generator=torch.Generator().manual_seed(n * 100 + m))
    kept = scores.topk(n, dim=2).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(2, kept, True).view(rows, columns)


def test_patterns_of_two_in_four_have_their_rank():
    patterns = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]]).bool()
    assert rank(patterns).tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(unrank(torch.arange(6), 2, 4), patterns)


@pytest.mark.parametrize(("n", "m", "bits"), [(1, 2, 1), (2, 4, 3), (1, 4, 2), (4, 8, 7), (2, 8, 5), (16, 32, 30)])
def test_a_group_takes_the_fewest_bits_that_tell_its_patterns_apart(n, m, bits):
    assert pattern_bits(n, m) == math.ceil(math.log2(math.comb(m, n))) == bits


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (3, 4), (4, 8), (5, 16), (16, 32), (1, 32)])
def test_nm_masks_come_back(n, m):
    mask = nm_mask(6, 4 * m, n, m)
    layout = NM(6, 4 * m, n, m)
    packed = layout.encode(mask)
    assert packed.shape == (layout.n_bytes,)
    assert torch.equal(layout.decode(packed), mask)
    assert layout.n_values == int(mask.sum())


@pytest.mark.parametrize("kind", [Bitmap, EliasFano])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 96)])
def test_unstructured_masks_come_back(kind, density, shape):
    mask = random_mask(*shape, density)
    layout = kind(*shape, int(mask.sum()))
    packed = layout.encode(mask)
    assert packed.shape == (layout.n_bytes,)
    assert torch.equal(layout.decode(packed), mask)


def test_elias_fano_of_three_places_by_hand():
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, [1, 6, 15]] = True  # 16 // 3 = 5: two low bits 01, 10, 11; high parts 0, 1, 3
    layout = EliasFano(1, 16, 3)
    low = 0b01 | 0b10 << 2 | 0b11 << 4
    high = 1 << 0 | 1 << (1 + 1) | 1 << (3 + 2)
    assert layout.encode(mask).tolist() == [low, high]


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.3, 0.5])
def test_places_stay_near_the_entropy(density):
    mask = random_mask(512, 512, density)
    share = float(mask.float().mean())
    entropy_bytes = -(share * math.log2(share) + (1 - share) * math.log2(1 - share)) * mask.numel() / 8
    chosen = smallest_layout(mask, 4)
    values = 4 * int(mask.sum())
    assert chosen.n_bytes + values <= 1.03 * (entropy_bytes + values)


def test_the_smallest_layout_follows_the_mask():
    assert smallest_layout(nm_mask(64, 128, 2, 4), 4) == NM(64, 128, 2, 4)
    assert smallest_layout(nm_mask(64, 128, 4, 8), 4) == NM(64, 128, 4, 8)
    assert isinstance(smallest_layout(random_mask(64, 128, 0.5), 4), Bitmap)
    assert isinstance(smallest_layout(random_mask(64, 128, 0.05), 4), EliasFano)


def test_groups_that_keep_fewer_are_filled_up_with_their_first():
    layout = NM(1, 8, 2, 4)
    mask = torch.tensor([[0, 0, 0, 1, 0, 0, 0, 0]]).bool()
    assert layout.fill(mask).int().tolist() == [[1, 0, 0, 1, 1, 1, 0, 0]]


def test_a_convolution_is_seen_as_rows_of_input_channels():
    weight = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2)  # [K, C, R, S]
    rows = rows_of(weight)
    assert rows.shape == (8, 3)
    assert torch.equal(rows[1], weight[1, :, 0, 0])  # rows run over (R, S, K)
    assert torch.equal(rows[2], weight[0, :, 0, 1])
    assert torch.equal(weight_from_rows(rows, weight.shape), weight)


def test_unknown_layouts_are_refused():
    with pytest.raises(ValueError, match="no layout 'csr'"):
        make_layout("csr", 4, 4, nnz=2)
