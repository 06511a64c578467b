"""Nominal vs measured: nominal bits and sparsity against packed bytes and measured speed. Pure."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from app.text import formats
from app.text.stages import NO_KERNEL, mark_disturbed

SPARSE = 0.1  # share of zeros from which a stage counts as sparse
FEW_BITS = 16.0  # nominal bits below which a stage counts as quantized
LARGER = 1.25  # packed over nominal bytes above which a stage is flagged


@dataclass(frozen=True)
class NominalClaim:
    """One stage's nominal values next to the measured ones; `warnings` are for people."""

    position: int
    label: str
    bits: float
    sparsity: float
    ideal_bytes: float  # nominal size: only nonzero weights, at their nominal bits
    packed_bytes: int
    speed_up: float | None
    disturbed: bool  # whether the machine was busy while it was timed
    warnings: tuple[str, ...]

    def row(self) -> dict[str, str]:
        """The row of the table."""
        return {
            "Stage": f"{self.position} · {self.label}",
            "Verdict": "; ".join(self.warnings) or "as claimed",
            "Nominal bits per weight": f"{self.bits:.2f}".rstrip("0").rstrip("."),
            "Nominal sparsity": formats.percent(self.sparsity),
            "Nominal size": formats.size(self.ideal_bytes),
            "Packed size": formats.size(self.packed_bytes),
            "Packed / nominal": formats.ratio(self.packed_bytes / self.ideal_bytes if self.ideal_bytes else None),
            "Measured speed-up": mark_disturbed(formats.ratio(self.speed_up), self.disturbed),
        }


def list_claims(stages: pd.DataFrame, timed: set[int]) -> list[NominalClaim]:
    """The claims of a run's trained, compressed stages; `timed` are the positions with any latency.

    `stages` have a latency's `ratio`, `ratio_high` and `disturbed` in addition to their own columns.
    """
    if stages.empty:
        return []
    kept = stages[stages["trained"] & stages["compressed"] & (stages["position"] >= 0)]
    return [_claim(stage, timed) for stage in kept.to_dict("records")]


def _claim(stage: dict[str, Any], timed: set[int]) -> NominalClaim:
    bits, sparsity = stage["nominal_bits"], stage["nominal_sparsity"]
    ideal = stage["parameters"] * (1 - sparsity) * bits / 8
    ratio = None if pd.isna(stage["ratio"]) else float(stage["ratio"])
    return NominalClaim(
        position=stage["position"],
        label=stage["label"],
        bits=bits,
        sparsity=sparsity,
        ideal_bytes=ideal,
        packed_bytes=stage["size_bytes"],
        speed_up=1 / ratio if ratio else None,
        disturbed=ratio is not None and bool(stage["disturbed"]),
        warnings=tuple(_warnings(stage, timed, ideal)),
    )


def _warnings(stage: dict[str, Any], timed: set[int], ideal: float) -> list[str]:
    found = []
    sparse, quantized = stage["nominal_sparsity"] >= SPARSE, stage["nominal_bits"] < FEW_BITS
    if stage["position"] not in timed:
        found.append(NO_KERNEL)
    elif pd.notna(stage["ratio"]) and not _is_faster(stage) and (sparse or quantized):
        found.append(mark_disturbed(f"{'sparse' if sparse else 'quantized'} but not faster", bool(stage["disturbed"])))
    if ideal and stage["size_bytes"] / ideal > LARGER:
        found.append("packed size above nominal")
    return found


def _is_faster(stage: dict[str, Any]) -> bool:
    """Significantly faster: the whole interval of the relative latency is below one."""
    high = stage["ratio_high"] if pd.notna(stage["ratio_high"]) else stage["ratio"]
    return bool(high < 1)
