"""Output of the command line: tables, stages and progress. Loads no torch."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.text import formats
from core.measured import Fidelity, MeasuredStage, reached_share
from core.quantities import MEDIAN, SCORE, SIZE, Quantity, Shown, measured_values, shown_in

STAGE_FIELDS = ("technique", "label", "score_name", "score_unit")
_APART = (SIZE, SCORE, MEDIAN)  # in columns of their own
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


def describe_stage(
    position: int, measured: MeasuredStage | Any, fidelity: Fidelity | Any, latencies: Iterable[Any]
) -> dict[str, Any]:
    """A stage as `--json` prints it, with every quantity; all arguments but the position may be rows of the store."""
    return {
        "position": position,
        **{name: getattr(measured, name) for name in STAGE_FIELDS},
        **measured_values(measured, fidelity),
        "reached": reached_share(measured.details),
        "latencies": [{name: getattr(row, name) for name in LATENCY_FIELDS} for row in latencies],
    }


def format_stages(stages: Sequence[Mapping[str, Any]]) -> str:
    """Stages from `stage_object`, one per line, without quantities that none of them has."""
    asked = [quantity for quantity in shown_in(Shown.TERMINAL) if quantity not in _APART]
    known = [quantity for quantity in asked if any(stage[quantity.name] is not None for stage in stages)]
    heads = (quantity.short for quantity in known)
    head = ("", "stage", "size", "score", "95 % interval", *heads, "reached", "p50", "relative latency", "conditions")
    return format_table(head, [_stage_row(stage, known) for stage in stages])


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


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


class ProgressLine:
    """One line on stderr, overwritten if stderr is a terminal; otherwise one line per step."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.is_terminal = self.stream.isatty()

    def step(self, text: str) -> None:
        """Start a step."""
        self.update(text) if self.is_terminal else self.line(text)

    def update(self, text: str) -> None:
        """Replace the line by `text`."""
        if self.is_terminal:
            self.stream.write(f"\r\033[K{text}")
            self.stream.flush()

    def line(self, text: str) -> None:
        """Print `text` permanently on its own line."""
        self.clear()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        self.update("")
