"""Channel permutation: another order of channels, under which N:M pruning keeps more of the weights' magnitude.

Paper: https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html (Pool & Yu,
2021). The dense model's outputs do not change. Here for any N:M; which parameters must move together is seen by
watching the model answer once (`core/models/channels`), and values are permuted within their heads too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.masks import check_pattern, divisible_weights, prunable_weights
from core.algorithms.permutation import Strategy, check_window, efficacy, find_permutation, kept_sum, row_wise_sum
from core.context import Context
from core.errors import SpecError, TechniqueFailure
from core.families import Family
from core.models.anatomy import anatomy
from core.models.channels import ChannelPart, Network, find_parts, trace_channels
from core.models.channels.parts import FFN, OTHER, RESIDUAL, VALUES
from core.nn.packing import rows_of
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import INTEGER_CODES, NM_PATTERN, OneShot

EXAMPLES = 8  # whose answers must stay the same
TRACED = 2  # of them, to see which channels move together


@dataclass
class Layer:
    """A searched layer: its magnitudes, and what its searches took."""

    part: str
    shape: list[int]
    total: float
    bound: float  # what row-wise pruning keeps
    before: float  # what N:M keeps
    seconds: float = 0.0


class ChannelPermutation(OneShot):
    """Reorder channels so that N:M pruning keeps larger weights. The dense model's outputs do not change."""

    family = Family.PRUNING
    paper = "https://proceedings.neurips.cc/paper/2021/hash/6e8404c3b93a9527c8db241a1846599a-Abstract.html"
    compresses = False
    refuses = {
        INTEGER_CODES: "Integer codes cannot be pruned: put channel_permutation before the step that quantizes.",
        NM_PATTERN: "Reordering inputs breaks the groups of N:M: put this step before the one that prunes N:M.",
    }

    n: int = Field(2, ge=1, le=31, description="weights kept per group by the later N:M pruning")
    m: int = Field(4, ge=2, le=32, description="consecutive input channels per group")
    strategy: Strategy = Field("stripe_groups", description="search algorithm")
    width: int = Field(2, ge=2, le=3, description="stripe_groups: groups whose channels are permuted together")
    escapes: int = Field(100, ge=0, le=100_000, description="how often the search may escape a local optimum")
    ffn: bool = Field(True, description="permute hidden units of a Transformer's feed-forward networks")
    values: bool = Field(True, description="permute value channels of a Transformer's attention within each head")
    residual: bool = Field(
        False, description="permute the residual stream of a Transformer, in one order for all layers"
    )

    def label(self) -> str:
        """The pattern, and the strategy."""
        wide = f" {self.width}" if self.strategy == "stripe_groups" else ""
        return f"{self.n}:{self.m} {self.strategy.replace('_', ' ')}{wide}"

    def check(self, subject: Subject) -> None:
        """n is below m, m divides some layer's input channels, and some part is to be permuted."""
        check_pattern(subject.model, self.n, self.m, "skip")
        if self.strategy == "stripe_groups":
            check_window(self.m, self.width)
        if not divisible_weights(subject.model, self.m):
            remedy = "Choose an m that divides the input channels of some layer."
            raise SpecError.of("m", self.m, "divides no layer's input channels", remedy)
        if anatomy(subject.model).blocks and not self._kinds() - {OTHER}:
            raise SpecError.of("ffn", self.ffn, "leaves nothing to permute", "Set ffn, values or residual.")

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Search and permute, part by part; put all back and fail where the answers do not stay the same."""
        self.check(subject)
        model = subject.model
        batch = next(context.calibration(EXAMPLES))
        few = {key: value[:TRACED] for key, value in batch.items()}
        network = trace_channels(model, lambda: logits_of(model, few))
        found, left = find_parts(network, anatomy(model), list(prunable_weights(model)), self.m, self._kinds())
        if not found:
            raise TechniqueFailure(f"no layer's inputs can be reordered: {_told(left)}")
        expected = logits_of(model, batch)
        tensors = _with_masks(network, subject)
        layers = self._layers(found, network)
        undo = []
        for index, part in enumerate(found):
            permutation = self._search(part, index, len(found), network, layers, context)
            part.channels.permute_(tensors, permutation)
            undo.append((part, permutation.argsort()))
        error = _relative_error(logits_of(model, batch), expected)
        if not error <= _tolerance(model, expected):
            for part, inverse in reversed(undo):
                part.channels.permute_(tensors, inverse)
            raise TechniqueFailure(f"reordering changes the model's outputs by {error:.2%}: left unchanged")
        if left:
            context.record.event("info", f"inputs that cannot be reordered: {_told(left)}")
        subject.details["layers"] = [self._row(name, layer, network) for name, layer in layers.items()]
        subject.details["left alone"] = left

    def _kinds(self) -> frozenset[str]:
        chosen = {FFN: self.ffn, VALUES: self.values, RESIDUAL: self.residual, OTHER: True}
        return frozenset(kind for kind, wanted in chosen.items() if wanted)

    def _layers(self, parts: list[ChannelPart], network: Network) -> dict[str, Layer]:
        layers = {}
        for part in parts:
            for name in part.layers:
                magnitude = _magnitude(network, name)
                bound, before = row_wise_sum(magnitude, self.n, self.m), kept_sum(magnitude, self.n, self.m)
                shape = list(network.tensors[f"{name}.weight"].shape)
                layers[name] = Layer(part.kind, shape, float(magnitude.sum(dtype=torch.float64)), bound, before)
        return layers

    def _search(
        self, part: ChannelPart, index: int, n_parts: int, network: Network, layers: dict[str, Layer], context: Context
    ) -> Tensor:
        """The permutation of a part's channels; what the search took is shared among its layers."""

        def report(done: float) -> None:
            context.record.progress((index + done) / n_parts, part.layers[0])

        report(0.0)
        found = find_permutation(
            part.matrix(network.tensors),
            n=self.n,
            m=self.m,
            strategy=self.strategy,
            width=self.width,
            escapes=self.escapes,
            generator=context.generator(f"permutation of {part.kind} {index}"),
            progress=report,
        )
        for name in part.layers:
            layers[name].seconds += found.seconds / len(part.layers)
        return found.permutation

    def _row(self, name: str, layer: Layer, network: Network) -> dict[str, Any]:
        after = kept_sum(_magnitude(network, name), self.n, self.m)
        total = max(layer.total, 1e-30)
        return {
            "name": name,
            "part": layer.part,
            "shape": layer.shape,
            "efficacy (%)": efficacy(layer.before, after, layer.bound),
            "kept before (%)": 100 * layer.before / total,
            "kept after (%)": 100 * after / total,
            "seconds": layer.seconds,
        }


def _magnitude(network: Network, layer: str) -> Tensor:
    return rows_of(network.tensors[f"{layer}.weight"]).abs().float()


def _with_masks(network: Network, subject: Subject) -> dict[str, list[Tensor]]:
    """What moves by name: parameters and buffers, and the masks of earlier steps."""
    tensors = {name: [tensor] for name, tensor in network.tensors.items()}
    for fqn, constraint in subject.constraints.items():
        name = network.names[fqn.removeprefix("main.")]
        if all(constraint.tensor is not tensor for tensor in tensors[name]):
            tensors[name].append(constraint.tensor)
    return tensors


def _relative_error(answer: Tensor, expected: Tensor) -> float:
    return float((answer - expected).norm() / expected.norm().clamp(min=torch.finfo(expected.dtype).tiny))


def _tolerance(model: nn.Module, answer: Tensor) -> float:
    """Half the digits of the coarsest type: other orders of summation stay below, other channels do not."""
    types = {answer.dtype, *(p.dtype for p in model.parameters() if p.is_floating_point())}
    return float(max(torch.finfo(dtype).eps for dtype in types) ** 0.5)


def _told(left: dict[str, str]) -> str:
    """Each reason with how many layers it is of, and the first of them."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(
        f"{reason} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
        for reason, names in by_reason.items()
    )
