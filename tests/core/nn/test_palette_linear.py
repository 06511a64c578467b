"""Layers with palettes mean what they should, and are as small as they say."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.models.meta import assign_weights, empty_weights
from core.nn.palette_linear import PaletteLinear


def make(bits: int, rows: int | None, dtype: torch.dtype = torch.float16) -> tuple[PaletteLinear, torch.Tensor]:
    generator = torch.Generator().manual_seed(bits)
    linear = nn.Linear(20, 10)
    codes = torch.randint(0, 2**bits, (10, 20), generator=generator)
    palettes = torch.randn(-(-10 // rows) if rows else 1, 2**bits, generator=generator).to(dtype)
    expected = [[float(palettes[o // (rows or 10), codes[o, i]]) for i in range(20)] for o in range(10)]
    return PaletteLinear.of(linear, codes, palettes, bits=bits, rows=rows), torch.tensor(expected)


@pytest.mark.parametrize("rows", [None, 1, 4, 10])
@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_are_those_of_the_palettes_and_reload(bits, rows):
    layer, expected = make(bits, rows)
    assert torch.equal(layer.weight(), expected)
    x = torch.randn(2, 3, 20)
    assert torch.allclose(layer(x), F.linear(x, expected, layer.bias), atol=1e-5)
    with empty_weights():
        again = PaletteLinear(**layer.arguments())
    assign_weights(again, layer.state_dict())
    assert torch.equal(again(x), layer(x))
    assert torch.equal(layer.dense().weight, expected)


def test_bytes_are_those_of_packed_indices_and_palettes():
    layer, _ = make(3, 4)
    assert layer.codes.nbytes == 10 * 8  # 20 indices of 3 bits are 60 bits a row
    assert layer.palettes.nbytes == 3 * 8 * 2
    assert layer.kernel(torch.device("cpu"), torch.float32) is None
    assert layer.count().bits == 3


def test_a_cast_keeps_the_palettes():
    layer, expected = make(4, None, torch.float32)
    layer.bfloat16()
    assert torch.equal(layer.weight(), expected)
    assert layer.bias.dtype == layer.dtype == torch.bfloat16
    assert layer(torch.randn(2, 20, dtype=torch.bfloat16)).dtype == torch.bfloat16
