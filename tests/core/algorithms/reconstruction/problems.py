"""Layers with inputs that are correlated, as units to learn."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from core.algorithms.quantization_grids import QuantizationScheme
from core.algorithms.reconstruction.learning import Learning, Plan
from core.algorithms.reconstruction.row_grid import RowGrid
from core.algorithms.reconstruction.units import Unit
from core.engine.recording import MemoryRecord
from tests.core.fakes import context, plane_subject


def correlated(n: int, d: int) -> Tensor:
    """Inputs [n, d] with a full covariance."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator)


def linear_of(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.clone())
    return linear


def problem(
    weight: Tensor,
    x: Tensor,
    scheme: QuantizationScheme | None = None,
    *,
    iterations: int = 200,
    mask: Tensor | None = None,
) -> tuple[Learning, MemoryRecord]:
    """One layer to learn so that its outputs for `x`, in four batches, stay what they are."""
    layer, batches, record = linear_of(weight), x.chunk(4), MemoryRecord()
    unit = Unit(
        "layer",
        layer.requires_grad_(False),
        {"layer": "weight"},
        len(batches),
        lambda i: ((batches[i],), {}),
        lambda i: layer(batches[i]),
        lambda i, target: None,
    )
    scheme = scheme or QuantizationScheme(3)
    block = SimpleNamespace(report=lambda share=0.0: None, batches=[{"x": batch} for batch in batches])
    plan = Plan(scheme, len(x), len(batches[0]), iterations)
    grids = {"layer": RowGrid(layer, scheme, mask)}
    return Learning(unit, grids, plan, context(plane_subject(), record), block, 0.0, 1.0, 0), record
