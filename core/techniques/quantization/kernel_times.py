"""How long layers take in each format on this worker: measured once for each shape of layer."""

from dataclasses import replace
from typing import Any

from core.allocation.table import DENSE, LayerFormat, SensitivityTable
from core.context import Context
from core.measure.hardware import hardware_name
from core.measure.kernels import layer_milliseconds
from core.nn.replacement import Replacement
from core.subject import Subject
from core.tasks.base import Kind
from core.techniques.quantization.formats import PackedLayer, layer_of, pack_layer


class KernelTimes:
    """Times of a subject's layers; equal shapes are measured once.

    A format without a kernel here takes the dense layer's time, since its weights are unpacked once, after loading.
    """

    def __init__(self, subject: Subject, context: Context):
        self.subject, self.context = subject, context
        self._known: dict[tuple[Any, ...], float] = {}

    @property
    def hardware(self) -> str:
        """What the times are of."""
        return hardware_name(self.context.device.type)

    def rows(self, vectors: float) -> int:
        """Vectors of one call: a language model decodes token by token, others read an example of so many at once."""
        is_language = self.context.task.kind is Kind.LANGUAGE_MODELLING
        return 1 if is_language else max(1, round(vectors))

    def milliseconds(self, name: str, format: LayerFormat, packed: PackedLayer | None, vectors: float) -> float:
        """Time of a layer; `packed` is None for the dense one."""
        device, dtype = self.context.device, self.subject.dtype
        if packed is None or packed.kernel(device, dtype) is None:
            packed, format = None, LayerFormat(0, dense=True)
        layer, rows = layer_of(self.subject.model, name), self.rows(vectors)
        key = (type(layer), *layer.weight.shape, layer.in_features, layer.bias is None, rows, format)
        if key not in self._known:
            timed = layer if packed is None else packed.module.to(device)
            for module in timed.modules():
                if isinstance(module, Replacement):
                    module.prepare()
            self._known[key] = layer_milliseconds(timed, rows, device, dtype)
        return self._known[key]


def timed_here(table: SensitivityTable, subject: Subject, context: Context) -> SensitivityTable:
    """The table with the times of this worker: measured again if they are of other hardware."""
    times = KernelTimes(subject, context)
    if table.hardware == times.hardware:
        return table
    context.record.event("info", f"the layers' times are of {table.hardware}: measured again on {times.hardware}")
    groups = []
    for index, group in enumerate(table.groups):
        context.record.progress(index / len(table.groups), f"{group.layers[0]}: time")
        layers = {name: layer_of(subject.model, name) for name in group.layers}
        vectors = group.macs / sum(layer.in_features * layer.out_features for layer in layers.values())
        measured = []
        for at, format in enumerate(table.formats):
            packed = {
                name: None if at == DENSE else pack_layer(subject, name, format, table.rounding) for name in layers
            }
            measured.append(sum(times.milliseconds(name, format, each, vectors) for name, each in packed.items()))
        groups.append(replace(group, milliseconds=measured))
    return replace(table, groups=groups, hardware=times.hardware)
