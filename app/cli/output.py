"""What the command line prints: tables, a run's stages, problems of a spec. Loads no torch."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.text import formats
from core.measured import MeasuredStage, reached_share

STAGE_FIELDS = (
    "technique",
    "label",
    "size_bytes",
    "score_name",
    "score",
    "score_low",
    "score_high",
    "parameters",
    "nonzeros",
    "macs",
    "peak_memory_bytes",
    "reload_max_error",
)
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


def stage_object(position: int, measured: MeasuredStage | Any, latencies: Iterable[Any]) -> dict[str, Any]:
    """A stage as `--json` prints it; `measured` and `latencies` may also be rows of the store."""
    return {
        "position": position,
        **{name: getattr(measured, name) for name in STAGE_FIELDS},
        "reached": reached_share(measured.details),
        "latencies": [{name: getattr(row, name) for name in LATENCY_FIELDS} for row in latencies],
    }


def stage_table(stages: Sequence[Mapping[str, Any]], units: Sequence[str]) -> str:
    """Stages as `stage_object` makes them, one a line, with each one's score unit."""
    quantities = ("size", "score", "95 % interval", "MACs", "non-zeros", "reached", "p50", "× reference")
    head = ("", "stage", *quantities, "conditions")
    rows = [_stage_row(stage, unit) for stage, unit in zip(stages, units, strict=True)]
    return table(head, rows)


def _stage_row(stage: Mapping[str, Any], unit: str) -> list[str]:
    first = next(iter(stage["latencies"]), None)
    interval = f"{formats.score(stage['score_low'], unit)} … {formats.score(stage['score_high'], unit)}"
    conditions = f"{first['runtime']} {first['kernel']}, batch {first['batch']}, {first['phase']}" if first else ""
    return [
        str(stage["position"]),
        stage["label"],
        formats.size(stage["size_bytes"]),
        formats.score(stage["score"], unit),
        interval,
        formats.count(stage["macs"]),
        formats.count(stage["nonzeros"]),
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
