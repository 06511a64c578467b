"""A dense feed-forward network as a mixture: experts of its form, or copies of it."""

from typing import Any

import torch
from torch import Tensor, nn

from core.nn.experts.feed_forward import ExpertFeedForward, Form
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.ffn.gated import GatedFfn
from core.nn.ffn.geglu import Geglu
from core.nn.ffn.mlp import Mlp

LAYERS = ("gate", "up", "down")


def layers_of(ffn: Mlp | GatedFfn) -> dict[str, nn.Linear]:
    """Its linear layers by name."""
    return {name: layer for name, layer in ffn.named_children() if isinstance(layer, nn.Linear)}


def form_of(ffn: Mlp | GatedFfn) -> Form:
    """What the network is made of."""
    layers = layers_of(ffn)
    gated = "gate" in layers
    bias = any(layer.bias is not None for layer in layers.values())
    return Form(layers["up"].in_features, layers["up"].out_features, "silu" if gated else "gelu", gated, bias)


def make_mixture(
    cls: type[MixtureOfExperts], n_experts: int, form: Form, ffn: nn.Module, **settings: Any
) -> MixtureOfExperts:
    """A mixture on the device and in the type of the network whose place it takes; its weights are zero."""
    like = next(ffn.parameters())
    return cls(n_experts, **form.arguments(), **settings).to(like.device, like.dtype).train(ffn.training)


def experts_of(mixture: MixtureOfExperts) -> dict[str, ExpertLinear]:
    """The experts' linear layers by name."""
    assert isinstance(mixture.experts, ExpertFeedForward)
    return mixture.experts.layers()


def upcycle_(mixture: MixtureOfExperts, ffn: Mlp | GatedFfn) -> None:
    """Make every expert a copy of the network. Paper: https://arxiv.org/abs/2212.05055 (Sparse upcycling)."""
    dense = layers_of(ffn)
    for name, layer in experts_of(mixture).items():
        layer.copy_(dense[name])


@torch.no_grad()
def draw_like_(mixture: MixtureOfExperts, ffn: Mlp | GatedFfn, generator: torch.Generator) -> None:
    """Draw every expert with the standard deviations of the network's own weights; a gate has that of `up`."""
    for name, layer in experts_of(mixture).items():
        _draw(layer.weight, _std(ffn, name), generator)


@torch.no_grad()
def fresh_geglu(ffn: Mlp, hidden: int, generator: torch.Generator) -> Geglu:
    """A gated network in the place of one of two layers, drawn with its standard deviations."""
    made = Geglu(ffn.up.in_features, hidden).to(ffn.up.weight.device, ffn.up.weight.dtype).train(ffn.training)
    for name, layer in made.named_children():
        _draw(layer.get_parameter("weight"), _std(ffn, name), generator)
    return made


@torch.no_grad()
def draw_truncated_(weight: Tensor, scale: float, generator: torch.Generator) -> None:
    """Draw weights [out, in] of variance scale / in, none beyond two standard deviations."""
    std = (scale / weight.shape[1]) ** 0.5
    drawn = torch.empty(weight.shape)
    nn.init.trunc_normal_(drawn, std=std, a=-2 * std, b=2 * std, generator=generator)
    weight.copy_(drawn)


def _std(ffn: Mlp | GatedFfn, name: str) -> float:
    dense = layers_of(ffn)
    return float(dense.get(name, dense["up"]).weight.float().std())


def _draw(weight: Tensor, std: float, generator: torch.Generator) -> None:
    weight.copy_(torch.empty(weight.shape).normal_(0, std, generator=generator))
