"""CoFi's learned masks: log alpha of every head, FFN unit, layer and channel, and the size that they make expect."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from core.algorithms.structured.hard_concrete import BOUND, probability_nonzero, sample, settled
from core.algorithms.structured.structure import Masks, Structure
from core.algorithms.structured.units import Units

OPEN = 10.0  # log alpha at the beginning: kept almost surely
UNDECIDED = 0.0  # of FFN units
NOISE = 0.01


class LogAlphas:
    """One number for every mask of a structure."""

    def __init__(self, structure: Structure, device: torch.device, generator: torch.Generator):
        def fresh(n: int, mean: float) -> nn.Parameter:
            return nn.Parameter((mean + NOISE * torch.randn(n, generator=generator)).to(device))

        self.structure = structure
        self.heads = [fresh(group.count, OPEN) for group in structure.heads]
        self.feeds = [fresh(group.count, UNDECIDED) for group in structure.feeds]
        self.attention_layers = fresh(len(structure.blocks), OPEN)
        self.feed_layers = fresh(len(structure.blocks), OPEN)
        self.stream = None if structure.stream is None else fresh(structure.stream.count, OPEN)

    def parameters(self) -> list[nn.Parameter]:
        """All of them, in a fixed order."""
        last = [] if self.stream is None else [self.stream]
        return [*self.heads, *self.feeds, self.attention_layers, self.feed_layers, *last]

    def sample(self) -> Masks:
        """Masks drawn anew; gradients flow to log alpha."""
        stream = None if self.stream is None else sample(self.stream)
        return Masks(
            heads=[sample(own) for own in self.heads],
            feeds=[sample(own) for own in self.feeds],
            attention_layers=sample(self.attention_layers),
            feed_layers=sample(self.feed_layers),
            stream=stream,
            channels=_channels(stream),
        )

    @torch.no_grad()
    def settled(self, multiple: int) -> Masks:
        """The masks without chance; FFN and stream keep a multiple of `multiple`."""
        stream = None if self.stream is None else settled(self.stream, multiple)
        return Masks(
            heads=[settled(own) for own in self.heads],
            feeds=[settled(own, multiple) for own in self.feeds],
            attention_layers=torch.cat([settled(own) for own in self.attention_layers.split(1)]),
            feed_layers=torch.cat([settled(own) for own in self.feed_layers.split(1)]),
            stream=stream,
            channels=_channels(stream),
        )

    def expected_sparsity(self) -> Tensor:
        """1 - expected share of the blocks' weights: a weight is kept where its unit, its layer and its channel are."""
        attentions, feeds = (probability_nonzero(own) for own in (self.attention_layers, self.feed_layers))
        channels = torch.ones((), device=attentions.device)
        if self.stream is not None:
            channels = probability_nonzero(self.stream).mean()
        expected, total = torch.zeros_like(channels), 0
        for layers, own, units in (
            (attentions, self.heads, self.structure.heads),
            (feeds, self.feeds, self.structure.feeds),
        ):
            for layer, log_alpha, group in zip(layers, own, units, strict=True):
                expected = expected + channels * layer * probability_nonzero(log_alpha).sum() * _features(group)
                total += _features(group) * group.count
        return 1 - expected / total

    @torch.no_grad()
    def constrain_(self) -> None:
        """Keep every log alpha where its gradient does not vanish."""
        for own in self.parameters():
            own.clamp_(-BOUND, BOUND)

    @torch.no_grad()
    def load(self, saved: Iterable[Tensor]) -> None:
        """Take over the values of `parameters`."""
        for own, value in zip(self.parameters(), saved, strict=True):
            own.copy_(value)


def whole(structure: Structure, device: torch.device) -> Masks:
    """Masks that mask nothing."""

    def ones(n: int) -> Tensor:
        return torch.ones(n, device=device)

    n_blocks, stream = len(structure.blocks), structure.stream
    return Masks(
        heads=[ones(group.count) for group in structure.heads],
        feeds=[ones(group.count) for group in structure.feeds],
        attention_layers=ones(n_blocks),
        feed_layers=ones(n_blocks),
        stream=None if stream is None else ones(stream.count),
    )


def _channels(stream: Tensor | None) -> Tensor | None:
    if stream is None:
        return None
    kept = stream.nonzero().flatten()
    return None if len(kept) == len(stream) else kept


def _features(units: Units) -> int:
    """Weights that a unit has for each channel of the stream."""
    return sum(part.width for part in units.slices if part.parameter.endswith(".weight"))
