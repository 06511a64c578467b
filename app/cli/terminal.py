"""What the command line prints: tables, a run's stages, problems of a spec. Loads no torch."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.text import formats
from core.measured import Fidelity, MeasuredStage, reached_share
from core.quantities import MEDIAN, SCORE, SIZE, Quantity, Shown, measured_values, shown_in

STAGE_FIELDS = ("technique", "label", "score_name", "score_unit")
_APART = (SIZE, SCORE, MEDIAN)  # in columns of their own form
LATENCY_FIELDS = (
    "runtime",
    "kernel",
    "dtype",
    "threads",
    "batch",
    "length",
    "phase",
    "p50_ms",
    "p95_ms",
    "ratio",
    "ratio_low",
    "ratio_high",
    "disturbed",
    "energy_mj",
    "reference_energy_mj",
)


def stage_object(
    position: int, measured: MeasuredStage | Any, fidelity: Fidelity | Any, latencies: Iterable[Any]
) -> dict[str, Any]:
    """A stage as `--json` prints it, with every quantity; all but the position may also be rows of the store."""
    return {
        "position": position,
        **{name: getattr(measured, name) for name in STAGE_FIELDS},
        **measured_values(measured, fidelity),
        "reached": reached_share(measured.details),
        "latencies": [{name: getattr(row, name) for name in LATENCY_FIELDS} for row in latencies],
    }


def stage_table(stages: Sequence[Mapping[str, Any]]) -> str:
    """Stages as `stage_object` makes them, one a line; quantities that none of them has are left out."""
    asked = [quantity for quantity in shown_in(Shown.TERMINAL) if quantity not in _APART]
    known = [quantity for quantity in asked if any(stage[quantity.name] is not None for stage in stages)]
    heads = (quantity.short for quantity in known)
    head = ("", "stage", "size", "score", "95 % interval", *heads, "reached", "p50", "× reference", "conditions")
    return table(head, [_stage_row(stage, known) for stage in stages])


def _stage_row(stage: Mapping[str, Any], quantities: Sequence[Quantity]) -> list[str]:
    unit = stage["score_unit"]
    first = next(iter(stage["latencies"]), None)
    interval = f"{formats.score(stage['score_low'], unit)} … {formats.score(stage['score_high'], unit)}"
    conditions = f"{first['runtime']} {first['kernel']}, batch {first['batch']}, {first['phase']}" if first else ""
    return [
        str(stage["position"]),
        stage["label"],
        formats.size(stage["size_bytes"]),
        formats.score(stage["score"], unit),
        interval,
        *(formats.quantity(stage[quantity.name], quantity) for quantity in quantities),
        formats.percent(stage["reached"]),
        formats.milliseconds(first["p50_ms"]) if first else formats.NOTHING,
        formats.ratio(first["ratio"]) if first else formats.NOTHING,
        conditions,
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


class ProgressLine:
    """One line on stderr that is written over where stderr is a terminal, and a line a step where it is not."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.is_terminal = self.stream.isatty()

    def step(self, text: str) -> None:
        """A step begins."""
        self.update(text) if self.is_terminal else self.line(text)

    def update(self, text: str) -> None:
        """Show `text` in place of what was shown before."""
        if self.is_terminal:
            self.stream.write(f"\r\033[K{text}")
            self.stream.flush()

    def line(self, text: str) -> None:
        """Leave `text` standing on a line of its own."""
        self.clear()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        self.update("")
