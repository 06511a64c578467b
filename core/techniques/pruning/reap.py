"""REAP: remove the experts of each layer that give their tokens least.

Paper: https://arxiv.org/abs/2510.13999. An expert's saliency is the mean, over the calibration tokens that its router
sends it, of the weight that it has there times the norm of what it gives. Routers lose the rows of the experts that go,
so that their weights are those of a softmax over the others. All layers are judged on the whole model, in one pass, and
nothing is trained. Here an expert that no calibration token meets is not judged: it stays, and the log names it.
"""

import torch
from pydantic import Field
from torch import Tensor

from core.algorithms.expert_pruning import (
    RoutedExperts,
    Saliency,
    keep_experts_,
    renew_config_,
    routed_experts,
    saliencies,
)
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.experts.noisy_top_k import NoisyTopKExperts
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, OneShot


def kept_experts(saliency: Saliency, n_removed: int, fewest: int) -> Tensor:
    """Indices of the experts that stay, ascending: all but the `n_removed` of least saliency.

    Those without tokens stay, and at least `fewest` of the others.
    """
    reached = saliency.tokens > 0
    n_removed = max(0, min(n_removed, int(reached.sum()) - fewest))
    ranked = torch.where(reached, saliency.means, torch.inf).argsort(stable=True)
    return ranked[n_removed:].sort().values


class Reap(OneShot):
    """Remove the experts with the least mean weight times output norm, and their rows of the router."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2510.13999"
    refuses = {
        INTEGER_CODES: "Packed experts cannot be pruned: put reap before the step that quantizes.",
        LOW_RANK: "Factored experts cannot be pruned: put reap before the step that factors.",
    }

    pruning_ratio: float = Field(0.25, gt=0, lt=1, description="share of each layer's experts to remove")
    calibration_examples: int = Field(128, ge=1, le=100_000, description="number of calibration examples")

    def label(self) -> str:
        """The share."""
        return f"{100 * self.pruning_ratio:g} %"

    def check(self, subject: Subject) -> None:
        """The model has experts in plain layers, some of which go, while enough for a token stay."""
        layers = routed_experts(subject.model)
        if not layers:
            message = "has no experts that can be removed"
            remedy = "Choose a model with experts (Mixtral, Qwen-MoE), or put reap after moe, switch or glam."
            raise SpecError.of("model", type(subject.model).__name__, message, remedy)
        for layer in layers:
            _require_plain(subject, layer)
            n_removed = self._n_removed(layer)
            if not n_removed:
                message = f"removes none of the {layer.experts} experts of {layer.name}"
                raise SpecError.of("pruning_ratio", self.pruning_ratio, message, "Choose a larger share.")
            if layer.experts - n_removed < _fewest(subject, layer):
                message = f"leaves {layer.experts - n_removed} experts in {layer.name}, where a token meets"
                remedy = "Choose a smaller share."
                raise SpecError.of("pruning_ratio", self.pruning_ratio, f"{message} {layer.choices}", remedy)

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Judge all experts, then cut."""
        self.check(subject)
        layers = routed_experts(subject.model)
        context.record.progress(0.0, "saliency of experts")
        found = saliencies(subject.model, layers, context.calibration(self.calibration_examples))
        rows, left = [], set()
        for index, layer in enumerate(layers):
            context.record.progress(index / len(layers), layer.name)
            saliency = found[layer.name]
            kept = kept_experts(saliency, self._n_removed(layer), _fewest(subject, layer))
            self._tell(context, layer, saliency, layer.experts - len(kept))
            keep_experts_(subject, layer, kept)
            left.add((layer.experts, len(kept)))
            rows.append(_row(layer, saliency, kept))
        if len(left) == 1:
            renew_config_(subject, *left.pop())
        subject.details["layers"] = rows

    def _tell(self, context: Context, layer: RoutedExperts, saliency: Saliency, n_removed: int) -> None:
        """Warn of experts that were not judged, and of fewer being removed for that."""
        unreached = (saliency.tokens == 0).nonzero().flatten().tolist()
        if not unreached:
            return
        message = f"no calibration token reaches experts {', '.join(map(str, unreached))} of {layer.name}: they stay"
        wanted = self._n_removed(layer)
        if n_removed < wanted:
            message += f", and only {n_removed} of {wanted} are removed"
        context.record.event("warning", f"{message}. Raise calibration_examples.")

    def _n_removed(self, layer: RoutedExperts) -> int:
        return int(self.pruning_ratio * layer.experts + 1e-9)


def _fewest(subject: Subject, layer: RoutedExperts) -> int:
    """Experts that must stay: those that a token meets; noise in training is weighed against one more."""
    is_noisy = isinstance(subject.model.get_submodule(layer.name), NoisyTopKExperts)
    return layer.choices + 1 if is_noisy else layer.choices


def _require_plain(subject: Subject, layer: RoutedExperts) -> None:
    feed = subject.model.get_submodule(layer.feed)
    other = next((n for n, m in feed.named_children() if type(m).__name__ != "ExpertLinear"), None)
    if other is not None:
        remedy = "Put reap before the step that factors, packs or quantizes experts."
        raise SpecError.of("model", f"{layer.feed}.{other}", "is not made of plain matrices", remedy)


def _row(layer: RoutedExperts, saliency: Saliency, kept: Tensor) -> dict[str, object]:
    stays = torch.zeros_like(saliency.tokens, dtype=torch.bool)
    stays[kept] = True
    removed = (~stays).nonzero().flatten()
    return {
        "name": layer.name,
        "experts": len(kept),
        "of": layer.experts,
        "removed": ", ".join(map(str, removed.tolist())),
        "tokens of removed": float(saliency.tokens[removed].sum() / saliency.tokens.sum().clamp(min=1)),
        "saliency of removed": float(saliency.sums[removed].sum() / saliency.sums.sum().clamp(min=1e-30)),
    }
