"""The time that one layer takes by itself, for choosing formats under a budget of milliseconds."""

import torch
from torch import Tensor, nn

from core.measure.latency import sample_of
from core.measure.work import Work
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear
from core.nn.experts.segments import Segments

WARM_UP = 3
SAMPLES = 9


@torch.inference_mode()
def layer_milliseconds(layer: nn.Module, rows: int, device: torch.device, dtype: torch.dtype) -> float:
    """Time of one call of a linear layer, or of experts that share the rows, on `rows` random input vectors.

    The least of several samples: whatever else the machine does only adds to it.
    """
    given = layer_inputs(layer, rows, device, dtype)
    sample = sample_of(Work(lambda: layer(*given), device))
    for _ in range(WARM_UP):
        sample()
    return min(sample() for _ in range(SAMPLES))


def layer_inputs(
    layer: nn.Module, rows: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor | Segments, ...]:
    """Arguments of a layer's `forward`; rows go to the experts in equal parts, the first ones getting the rest."""
    x = torch.randn(rows, int(layer.in_features), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    placed = x.to(device, dtype)
    if not isinstance(layer, (ExpertLinear, PackedExpertLinear)):
        return (placed,)
    each, rest = divmod(rows, layer.experts)
    counts = torch.tensor([each + (expert < rest) for expert in range(layer.experts)], device=device)
    return placed, Segments(counts)
