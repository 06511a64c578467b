"""What calibration data reached: tokens by layer and expert, input channels that stayed zero, and outliers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.nn.experts.segments import Segments


class LayerInputs:
    """The inputs that one group of layers saw."""

    def __init__(self, experts: int = 0):
        self.count = 0  # vectors
        self.by_expert = [0] * experts
        self._peak: Tensor | None = None  # largest magnitude of each channel [groups, d]
        self._squares: Tensor | None = None  # their sum [groups, d]

    def add(self, rows: Tensor, segments: Segments | None = None) -> None:
        """Take in further vectors [groups, n, d], or [n, d] sorted by expert."""
        if segments is not None:
            for expert, own in segments.slices:
                self.by_expert[expert] += own.stop - own.start
            rows = rows[None]
        if not rows.shape[1]:
            return
        self.count += rows.shape[1]
        peak = rows.abs().amax(dim=1).float()
        squares = rows.to(torch.promote_types(rows.dtype, torch.float32)).square().sum(dim=1).double()
        self._peak = peak if self._peak is None else torch.maximum(self._peak, peak)
        self._squares = squares if self._squares is None else self._squares + squares

    def row(self) -> dict[str, Any]:
        """Tokens, channels, dead channels, and the largest magnitude as a multiple of the root mean square."""
        found: dict[str, Any] = {"tokens": self.count}
        if self.by_expert:
            found |= {"fewest tokens of an expert": min(self.by_expert), "experts": len(self.by_expert)}
        if self._peak is None or self._squares is None:
            return found
        rms = float(self._squares.sum() / (self.count * self._squares.numel())) ** 0.5
        ratio = float(self._peak.max()) / rms if rms else None
        return {
            **found,
            "inputs": self._peak.numel(),
            "dead inputs": int((self._peak == 0).sum()),
            "outlier ratio": ratio,
        }


@dataclass
class Coverage:
    """What one step drew and which layers saw it."""

    drawn: dict[str, int] = field(default_factory=dict)  # source -> examples of the largest draw
    tokens: int = 0  # of that draw, without padding; 0 for images
    layers: dict[str, LayerInputs] = field(default_factory=dict)  # by the first layer of a group
    groups: dict[str, list[str]] = field(default_factory=dict)  # the layers of each group

    def note_draw(self, drawn: Mapping[str, int], tokens: int) -> None:
        """Keep a draw, complete or not yet, if it is the largest so far."""
        if sum(drawn.values()) > sum(self.drawn.values()):
            self.drawn, self.tokens = dict(drawn), tokens

    def watch(self, group: list[str], experts: int = 0) -> LayerInputs | None:
        """What takes in a group's inputs; None if they were seen before, as a step may look at them several times."""
        if group[0] in self.layers:
            return None
        self.groups[group[0]] = list(group)
        return self.layers.setdefault(group[0], LayerInputs(experts))

    def report(self) -> dict[str, Any]:
        """For a stage's details: examples by source, tokens, and a row for each layer."""
        rows = [{"name": name, **seen.row()} for first, seen in self.layers.items() for name in self.groups[first]]
        return {"examples": self.drawn, "tokens": self.tokens, "layers": rows}


def count_tokens(batch: Mapping[str, Tensor]) -> int:
    """Tokens of a batch without padding; 0 for images."""
    mask, ids = batch.get("attention_mask"), batch.get("input_ids")
    if mask is not None:
        return int(mask.sum())
    return 0 if ids is None else ids.numel()
