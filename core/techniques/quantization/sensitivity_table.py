"""Builds the table of a sensitivity step: groups of layers, their costs in each format, and an estimate for each."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from core.algorithms.outliers import InputProfile, joined, profile_of
from core.allocation.table import DENSE, LayerFormat, LayerGroup, SensitivityTable
from core.calibration import CalibrationBlock
from core.context import Context
from core.models.meta import tied_parameters
from core.subject import Subject
from core.techniques.quantization.formats import PackedLayer, layer_of, pack_layer
from core.techniques.quantization.kernel_times import KernelTimes

Estimate = Callable[[Mapping[str, PackedLayer]], float]  # of a group's layers, packed -> the increase of the loss


@dataclass
class _Group:
    layers: list[str]
    block: str
    vectors: float  # that enter each layer, for one example (of experts: all of them together)


class TableBuilder:
    """Observes a model's layers on calibration data, then goes through all groups and formats."""

    def __init__(self, subject: Subject, context: Context, formats: list[LayerFormat], rounding: dict[str, Any]):
        self.subject, self.context, self.rounding = subject, context, rounding
        dense = LayerFormat(torch.finfo(subject.dtype).bits, dense=True)
        self.formats = [dense, *formats]
        self.profiles: list[dict[str, Any]] = []  # of each layer: outliers and histograms
        self._groups: list[_Group] = []
        self._times = KernelTimes(subject, context)
        self._examples = 0

    @property
    def layers(self) -> list[str]:
        """Full names of the layers that calibration examples reach."""
        return [name for group in self._groups for name in group.layers]

    def observe(self, blocks: Iterable[CalibrationBlock], examples: int) -> None:
        """Find the groups of layers that share their input, and profile their weights and inputs."""
        self._examples = examples
        for block in blocks:
            for names, statistic in block.statistics(InputProfile):
                inputs = joined(statistic.value)
                layer = layer_of(self.subject.model, names[0])
                inside = all(name.startswith(f"{block.name}.") for name in names)
                vectors = inputs.number / layer.in_features / examples
                self._groups.append(_Group(list(names), block.name if inside else "", vectors))
                for name in names:
                    weights = profile_of(layer_of(self.subject.model, name).weight.detach())
                    profile = {"name": name, "weights": weights.to_json(), "inputs": inputs.to_json()}
                    self.profiles.append(profile)

    def measure(self, method: str, estimate: Estimate) -> SensitivityTable:
        """The table; `estimate` is called for each group in each format."""
        groups = []
        for index, group in enumerate(self._groups):
            rows = []
            for at, each in enumerate(self.formats[1:]):
                share = (index + at / len(self.formats)) / len(self._groups)
                self.context.record.progress(share, f"{group.layers[0]}: {each.name}")
                rows.append(self._measure(group, each, estimate))
            groups.append(self._with_dense(group, rows))
        return SensitivityTable(
            method=method,
            formats=self.formats,
            groups=groups,
            other_bytes=self._other_bytes(),
            examples=self._examples,
            rounding=self.rounding,
            hardware=self._times.hardware,
            rows=self._times.rows(self._groups[0].vectors),
        )

    def _measure(self, group: _Group, each: LayerFormat, estimate: Estimate) -> dict[str, Any]:
        packed = {name: pack_layer(self.subject, name, each, self.rounding) for name in group.layers}
        loss = estimate(packed)
        kernels = {layer.kernel(self.context.device, self.subject.dtype) for layer in packed.values()}
        times = [self._times.milliseconds(name, each, layer, group.vectors) for name, layer in packed.items()]
        return {
            "losses": loss if loss == loss and abs(loss) != float("inf") else None,
            "bytes": sum(layer.bytes for layer in packed.values()),
            "kernels": kernels.pop() if len(kernels) == 1 else None,
            "milliseconds": sum(times),
        }

    def _with_dense(self, group: _Group, rows: list[dict[str, Any]]) -> LayerGroup:
        layers = [layer_of(self.subject.model, name) for name in group.layers]
        weights = [layer.weight for layer in layers]
        dense = {
            "losses": 0.0,
            "bytes": sum(weight.numel() * weight.element_size() for weight in weights),
            "kernels": None,
            "milliseconds": sum(
                self._times.milliseconds(name, self.formats[DENSE], None, group.vectors) for name in group.layers
            ),
        }
        return LayerGroup(
            layers=group.layers,
            block=group.block,
            weights=sum(weight.numel() for weight in weights),
            macs=group.vectors * sum(layer.in_features * layer.out_features for layer in layers),
            **{key: [row[key] for row in (dense, *rows)] for key in dense},
        )

    def _other_bytes(self) -> int:
        """Bytes of all tensors but the groups' weights; tied ones once."""
        total = 0
        for model in self.subject.models.values():
            again = {fqn for group in tied_parameters(model) for fqn in group[1:]}
            state = {fqn: t for fqn, t in model.state_dict().items() if fqn not in again}
            total += sum(t.numel() * t.element_size() for t in state.values())
        mine = [layer_of(self.subject.model, name).weight for name in self.layers]
        return total - sum(weight.numel() * weight.element_size() for weight in mine)
