"""A linear layer of each expert, their weights under one another in one tall matrix."""

import torch
from torch import Tensor, nn

from core.nn.experts.segments import Segments, segmented_linear
from core.nn.experts.spare import Spare


class ExpertLinear(nn.Module):
    """Weight [experts * out, in] and bias [experts * out]: expert e has the e-th `out_features` rows.

    So what prunes or rounds a linear layer's weight row by row can do so with this one.
    """

    bias: nn.Parameter | None

    def __init__(self, experts: int, in_features: int, out_features: int, *, bias: bool):
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.weight = nn.Parameter(torch.zeros(experts * out_features, in_features))
        self.spare = Spare()
        self.register_parameter("bias", nn.Parameter(torch.zeros(experts * out_features)) if bias else None)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """Rows [n, in] sorted by expert -> [n, out]."""
        return segmented_linear(x, self.matrices(), self.offsets(), segments)

    def matrices(self) -> Tensor:
        """The weight as [experts, out, in]."""
        return self.weight.view(self.experts, self.out_features, self.in_features)

    def offsets(self) -> Tensor | None:
        """The bias as [experts, out]."""
        return None if self.bias is None else self.bias.view(self.experts, self.out_features)

    @torch.no_grad()
    def copy_(self, linear: nn.Linear) -> None:
        """Make every expert's layer a copy of this one."""
        self.weight.copy_(linear.weight.repeat(self.experts, 1))
        if self.bias is not None:
            self.bias.copy_(linear.bias.repeat(self.experts)) if linear.bias is not None else self.bias.zero_()

    def linears(self) -> list[nn.Linear]:
        """Each expert's layer as an ordinary one, of the same memory."""
        biases = [None] * self.experts if self.bias is None else list(self.bias.chunk(self.experts))
        return [_linear(w, b) for w, b in zip(self.weight.chunk(self.experts), biases, strict=True)]

    def extra_repr(self) -> str:
        return f"experts={self.experts}, in_features={self.in_features}, out_features={self.out_features}"


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach())
    return made
