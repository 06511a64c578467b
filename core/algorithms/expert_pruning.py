"""Experts as units: what each of them matters to the tokens that meet it, and cutting some of them out.

Paper: https://arxiv.org/abs/2510.13999 (REAP).
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.algorithms.structured.units import places
from core.nn.experts.feed_forward import ExpertFeedForward
from core.nn.experts.huggingface import HuggingFaceExperts
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.routing import sort_by_expert
from core.subject import Subject
from core.tasks.base import inputs, logits_of

_COUNT_NAMES = ("num_local_experts", "num_experts", "n_routed_experts")  # in configs of transformers


@dataclass(frozen=True)
class RoutedExperts:
    """The experts of one layer, by full names."""

    name: str  # the module that is called with tokens
    feed: str  # the experts' networks
    router: tuple[str, ...]  # parameters and buffers that have a row for each expert
    experts: int
    choices: int  # experts that a token meets


@dataclass
class Saliency:
    """What each expert of a layer was seen to give: the sum over its tokens, and how many these are, [experts] each."""

    sums: Tensor
    tokens: Tensor

    @property
    def means(self) -> Tensor:
        """Mean over the tokens of an expert; not a number where it met none."""
        return self.sums / self.tokens


def routed_experts(model: nn.Module) -> list[RoutedExperts]:
    """The layers of experts whose networks and router are known."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, MixtureOfExperts) and isinstance(module.experts, ExpertFeedForward):
            router = _rows(module, name, module.n_experts, recurse=False)
            found.append(RoutedExperts(name, f"{name}.experts", router, module.n_experts, module.choices))
        elif isinstance(module, HuggingFaceExperts):
            router = _router_beside(model, name, module.experts)
            if router:
                found.append(RoutedExperts(name, name, router, module.experts, module.choices))
    return found


@torch.no_grad()
def saliencies(
    model: nn.Module, layers: Iterable[RoutedExperts], batches: Iterable[dict[str, Tensor]]
) -> dict[str, Saliency]:
    """Of each layer, the sums of g ||f(x)|| over the tokens x of each expert f, with the weight g that it has there.

    Padding and tokens that found no place do not count.
    """
    found, padding = {}, _Padding()
    with ExitStack() as stack:
        for layer in layers:
            device = model.get_parameter(layer.router[0]).device
            zeros = torch.zeros(2, layer.experts, dtype=torch.float64, device=device)
            found[layer.name] = Saliency(zeros[0], zeros[1])
            hook = _watch(layer, found[layer.name], padding)
            handle = model.get_submodule(layer.name).register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        for batch in batches:
            padding.mask = batch.get("attention_mask")
            logits_of(model, inputs(batch))
    return found


@torch.no_grad()
def keep_experts_(subject: Subject, layer: RoutedExperts, kept: Tensor) -> None:
    """Cut all experts but `kept` (indices, ascending) and their rows of the router out of the main model."""
    module, feed = (subject.model.get_submodule(name) for name in (layer.name, layer.feed))
    assert isinstance(feed, ExpertFeedForward)
    for name, linear in feed.layers().items():
        for parameter, _ in list(linear.named_parameters()):
            subject.shrink(f"{layer.feed}.{name}.{parameter}", 0, places(kept, linear.out_features))
        linear.experts = len(kept)
    feed.experts = len(kept)
    if isinstance(module, MixtureOfExperts):
        module.n_experts = len(kept)
    for name in layer.router:
        subject.shrink(name, 0, kept)
        owner: Any = subject.model.get_submodule(name.rpartition(".")[0])
        if hasattr(owner, "num_experts"):
            owner.num_experts = len(kept)


def renew_config_(subject: Subject, before: int, after: int) -> None:
    """Let a transformers config say `after` experts in every layer where it says `before`."""
    config = subject.configs["main"]
    if config.get("source") != "hf":
        return
    for name in _COUNT_NAMES:
        if config["config"].get(name) == before:
            model: Any = subject.model
            setattr(model.config, name, after)
            if getattr(model, "num_experts", None) == before:  # of its loss that balances the experts
                model.num_experts = after
            subject.configs["main"] = {**config, "config": {**config["config"], name: after}}
            return


class _Padding:
    """Which tokens [B, T] of the current batch are real, where a model does not tell its experts."""

    mask: Tensor | None = None

    def valid(self, n_tokens: int, device: torch.device) -> Tensor:
        if self.mask is not None and self.mask.numel() == n_tokens:
            return self.mask.flatten().bool().to(device)
        return torch.ones(n_tokens, dtype=torch.bool, device=device)


def _watch(layer: RoutedExperts, saliency: Saliency, padding: _Padding) -> Callable[..., None]:
    def of_mixture(module: MixtureOfExperts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x, mask = args[0], kwargs.get("mask")
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
        routing = module.route(x, valid, causal=kwargs.get("causal", False))
        _add(saliency, module.experts, x.flatten(0, 1), routing.experts, routing.gates, routing.kept)

    def of_experts(module: HuggingFaceExperts, args: tuple[Any, ...], _: dict[str, Any]) -> None:
        x, chosen, gates = args
        kept = padding.valid(len(x), x.device)[:, None].expand_as(chosen)

        def experts(*sorted_rows: Any) -> Tensor:
            return ExpertFeedForward.forward(module, *sorted_rows)

        _add(saliency, experts, x, chosen, gates, kept)

    return of_experts if layer.name == layer.feed else of_mixture


def _add(
    saliency: Saliency, experts: Callable[..., Tensor], rows: Tensor, chosen: Tensor, gates: Tensor, kept: Tensor
) -> None:
    order, segments = sort_by_expert(chosen, kept, len(saliency.sums))
    given = experts(rows.index_select(0, order // chosen.shape[-1]), segments)
    weighted = gates.flatten().index_select(0, order).double() * given.double().norm(dim=-1)
    saliency.sums.index_add_(0, chosen.flatten().index_select(0, order), weighted)
    saliency.tokens += segments.counts


def _rows(module: nn.Module, prefix: str, n_experts: int, *, recurse: bool = True) -> tuple[str, ...]:
    """Full names of a module's saved tensors that have a row for each expert."""
    saved = module.state_dict().keys()
    tensors = [*module.named_parameters(recurse=recurse), *module.named_buffers(recurse=recurse)]
    return tuple(f"{prefix}.{n}" for n, t in tensors if n in saved and t.dim() and t.shape[0] == n_experts)


def _router_beside(model: nn.Module, name: str, n_experts: int) -> tuple[str, ...]:
    """Names of the router's tensors that have a row for each expert; none where it chooses in groups of experts."""
    parent = name.rpartition(".")[0]
    others = [(n, m) for n, m in model.get_submodule(parent).named_children() if f"{parent}.{n}" != name]
    routers = [(n, m) for n, m in others if "Router" in type(m).__name__]
    if len(routers) != 1 or getattr(routers[0][1], "n_group", 1) not in (None, 1):
        return ()
    return _rows(routers[0][1], f"{parent}.{routers[0][0]}", n_experts)
