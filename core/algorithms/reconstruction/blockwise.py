"""Walk over a model and round the weights of each block or layer so that its outputs stay what they were.

The walk keeps the hidden states of two models, the unchanged one and the one whose blocks are rounded so far, and a
float32 copy of one block. Learning begins with rounding to nearest, which is kept where learning makes nothing better.
"""

from collections.abc import Collection, Iterator
from typing import Any

from core.algorithms.packed_layers import replace_by_packed
from core.algorithms.reconstruction.learning import Learn, Learning, Packed, Plan, weight_of
from core.algorithms.reconstruction.row_grid import RowGrid
from core.algorithms.reconstruction.units import Unit, block_unit, layer_units
from core.calibration import CalibrationBlock
from core.context import Context
from core.subject import Subject


def reconstruct(
    subject: Subject, context: Context, layers: Collection[str], plan: Plan, learn: Learn
) -> list[dict[str, Any]]:
    """Replace `layers` by packed ones that `learn` finds, and return one row of the report for each layer.

    `output_error` is the root mean square error of the outputs of a layer's block (or of the layer itself) over their
    root mean square, `nearest_output_error` that of rounding to nearest.
    """
    rows: dict[str, dict[str, Any]] = {}
    learned = 0
    blocks = context.blocks(subject, plan.calibration_examples, layers, batch_size=plan.batch_size, targets=True)
    for block in blocks:
        n_units = sum(map(len, block.groups)) if plan.by_layer or not block.is_block else 1
        for index, unit in enumerate(_units(block, plan)):
            start = learned * plan.iterations
            grids = {
                name: RowGrid(block.layer(name), plan.scheme, subject.mask(f"{name}.weight"))
                for name in unit.parameters
            }
            learning = Learning(unit, grids, plan, context, block, index / n_units, 1 / n_units, start)
            chosen, errors = _learned(learning, learn)
            learned += 1
            for name, packed in chosen.items():
                rows[name] = {**replace_by_packed(subject, name, packed, plan.scheme.bits), **errors}
    return [rows[name] for name in layers]


def _units(block: CalibrationBlock, plan: Plan) -> Iterator[Unit]:
    if block.is_block and not plan.by_layer:
        yield block_unit(block, plan.loss)
    else:
        yield from layer_units(block)


def _learned(learning: Learning, learn: Learn) -> tuple[Packed, dict[str, float]]:
    """The packed layers of the smaller error, learned or nearest, and the errors for the report."""
    unit = learning.unit
    if not unit.n_batches:
        learning.block.warn(f"no calibration example reaches {', '.join(unit.parameters)}: rounded to nearest")
        return learning.nearest, {}
    chosen, error = learning.nearest, learning.nearest_error
    if error > 0:
        found = learn(learning)
        its_error = learning.mean_error({name: weight_of(packed) for name, packed in found.items()})
        if its_error <= error:
            chosen, error = found, its_error
        else:
            learning.context.record.event("info", f"{unit.name}: rounding to nearest is kept, whose error is smaller")
    energy = unit.energy()
    relative = [(e / energy) ** 0.5 if energy > 0 else 0.0 for e in (error, learning.nearest_error)]
    return chosen, dict(zip(("output_error", "nearest_output_error"), relative, strict=True))
