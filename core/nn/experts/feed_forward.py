"""The experts: feed-forward networks of one form, each of which works on the rows of its segment."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.experts.fused import FusedExperts
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.segments import Segments, has_grouped_kernel, in_autocast
from core.nn.precision import without_autocast

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu}


@dataclass(frozen=True)
class Form:
    """What a feed-forward network is made of: down(activation(up)), or down(activation(gate) * up)."""

    dim: int
    hidden: int
    activation: str
    gated: bool
    bias: bool

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments, plain JSON."""
        return asdict(self)

    def weights(self) -> int:
        """Entries of its matrices."""
        return (3 if self.gated else 2) * self.dim * self.hidden

    def parameters(self) -> int:
        """Entries of its matrices and biases."""
        biases = (2 if self.gated else 1) * self.hidden + self.dim
        return self.weights() + (biases if self.bias else 0)


class ExpertFeedForward(nn.Module):
    """`experts` feed-forward networks of one form."""

    def __init__(self, experts: int, form: Form):
        super().__init__()
        self.experts, self.form = experts, form
        self.gate = ExpertLinear(experts, form.dim, form.hidden, bias=form.bias) if form.gated else None
        self.up = ExpertLinear(experts, form.dim, form.hidden, bias=form.bias)
        self.down = ExpertLinear(experts, form.hidden, form.dim, bias=form.bias)

    def layers(self) -> dict[str, ExpertLinear]:
        """The linear layers by name, those that were packed left out."""
        return {name: layer for name, layer in self.named_children() if isinstance(layer, ExpertLinear)}

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Rows [n, dim] sorted by expert -> [n, dim]."""
        into = [self.up] if self.gate is None else [self.gate, self.up]
        layers = [*into, self.down]
        if not self._runs_fused(x, layers):
            return self.down(self.mix([layer(x, segments) for layer in into]), segments)
        tensors = [*(layer.matrices() for layer in layers), *(layer.offsets() for layer in layers)]
        rows, *tensors = in_autocast(x, *tensors)
        spares = [layer.spare for layer in layers]
        with without_autocast(x.device):
            out: Tensor = FusedExperts.apply(rows, segments, self.mix, spares, *tensors)
        return out

    def mix(self, parts: Sequence[Tensor]) -> Tensor:
        """The hidden units of what the first layers gave."""
        activation = ACTIVATIONS[self.form.activation]
        return activation(parts[0]) * parts[1] if self.form.gated else activation(parts[0])

    def _runs_fused(self, x: Tensor, layers: Sequence[nn.Module]) -> bool:
        """Not where someone watches what enters single layers: calibration does."""
        plain = len(self.layers()) == len(layers) and not any(layer._forward_pre_hooks for layer in layers)
        return plain and not has_grouped_kernel(x, self.up.matrices())
