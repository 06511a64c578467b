"""The experts of a model of transformers, their fused weights taken apart into the linear layers that techniques know.

transformers keeps all experts' weights in two parameters with three axes, which are not linear layers. Here each
layer is an `ExpertLinear`, so that what prunes, rounds or factors experts' layers does so with these. The model's own
router still chooses.
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.experts.feed_forward import ACTIVATIONS, ExpertFeedForward, Form
from core.nn.experts.low_rank import saved_by_factoring
from core.nn.experts.mixture import NO_ONNX, mixed_by_experts
from core.nn.replacement import Replacement

GATE = "_apply_gate"  # what every class of fused experts has


class HuggingFaceExperts(ExpertFeedForward, Replacement):
    """Gated experts of which a token meets `choices`, called as transformers calls its own."""

    no_onnx = NO_ONNX

    def __init__(self, n_experts: int, *, choices: int, **form: Any):
        super().__init__(n_experts, Form(**form))
        self.choices = choices

    @classmethod
    @torch.no_grad()
    def of(cls, fused: nn.Module) -> "HuggingFaceExperts":
        """The same experts; ValueError where they compute something else."""
        reason = unsupported(fused)
        if reason is not None:
            raise ValueError(reason)
        known: Any = fused
        into, out = known.gate_up_proj, known.down_proj  # [experts, 2 * hidden, dim] and [experts, dim, hidden]
        if known.is_transposed:
            into, out = into.transpose(1, 2), out.transpose(1, 2)
        form = Form(into.shape[2], out.shape[2], known.config.hidden_act, gated=True, bias=False)
        with torch.device("meta"):
            made = cls(len(into), choices=known.config.num_experts_per_tok, **form.arguments())
        gate, up = into.chunk(2, dim=1)
        for layer, matrices in ((made.gate, gate), (made.up, up), (made.down, out)):
            assert layer is not None
            layer.weight = nn.Parameter(matrices.reshape(-1, layer.in_features).clone())
        return made.train(fused.training)

    def forward(self, x: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:  # type: ignore[override]
        """Tokens x [n, dim], the experts of each [n, choices] and their weights -> [n, dim]."""
        kept = top_k_index < self.experts
        return mixed_by_experts(super().forward, x, top_k_index, top_k_weights, kept, self.experts)

    def inactive_parameters(self) -> int:
        """Parameters of the experts that a token does not meet."""
        return (self.experts - self.choices) * (self.form.parameters() - saved_by_factoring(self))

    def macs(self, shape: torch.Size) -> int:
        return shape.numel() // shape[-1] * self.choices * (self.form.weights() - saved_by_factoring(self))

    def arguments(self) -> dict[str, Any]:
        return {"n_experts": self.experts, "choices": self.choices, **self.form.arguments()}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        return "dense"


def unsupported(fused: nn.Module) -> str | None:
    """Why the weights of transformers' experts stay as they are; None if they can be taken apart."""
    name, known = type(fused).__name__, vars(fused)
    if known.get("has_bias") or known.get("has_post_expert_norm") or not known.get("has_gate"):
        return f"{name} is not a gated network without biases and norms"
    if not known.get("is_concatenated") or getattr(fused, GATE).__name__ != "_default_apply_gate":
        return f"{name} has a gate of its own"
    config = known["config"]
    if getattr(config, "hidden_act", None) not in ACTIVATIONS or not hasattr(config, "num_experts_per_tok"):
        return f"the activation or the number of experts a token of {name} is not known"
    return None
