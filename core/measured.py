"""What a stage was measured to be, as it goes from the pipeline to the store. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIGNIFICANT = 0.05  # p-value below which a difference counts as more than chance


def difference_unit(score_unit: str) -> str:
    """In what differences of a score are told: those of percentages in points."""
    return "points" if score_unit == "%" else score_unit


def reached_share(details: Mapping[str, Any] | None) -> float | None:
    """The share of the parameters that a step reached, of its stage's details; None for sources and older stages."""
    reached = (details or {}).get("reached")
    return None if reached is None else reached["share"]


@dataclass(frozen=True)
class LatencyRow:
    """How long a stage took, alternated with its reference, and under which conditions."""

    hardware: str
    software: str
    runtime: str  # eager, compile, onnxruntime
    kernel: str
    dtype: str
    threads: int
    batch: int
    length: int | None  # tokens
    phase: str  # forward | prefill | decode
    p50_ms: float
    p95_ms: float
    reference_p50_ms: float | None
    ratio: float | None  # stage / reference: below 1 is faster
    ratio_low: float | None
    ratio_high: float | None
    repeats: int
    disturbed: bool
    contention: float  # share of the cores that others used meanwhile
    energy_mj: float | None = None  # millijoules of one call or token, where the hardware reports them
    reference_energy_mj: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A stage's score against its reference's, paired by example."""

    delta: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class MeasuredStage:
    """A stage with all that does not depend on the hardware; fields as the columns of `stage`."""

    key: str
    technique: str
    family: str
    label: str
    settings: dict[str, Any]
    model: str
    task: str
    task_hash: str
    trained: bool
    compressed: bool
    size_bytes: int
    score_name: str
    score_unit: str
    higher_is_better: bool
    score: float
    score_low: float
    score_high: float
    scores: dict[str, float]
    parameters: int
    active_parameters: int
    nonzeros: int
    macs: int
    nominal_bits: float
    nominal_sparsity: float
    peak_memory_bytes: int | None
    reload_max_error: float | None
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundStage:
    """A recorded stage that a run may use instead of computing its own."""

    stage_id: int
    measured: MeasuredStage
    latencies: list[tuple[str | None, LatencyRow]] = field(default_factory=list)  # with the reference's key


@dataclass(frozen=True)
class StageRecord:
    """A stage at its place in a run, with its comparison to the run's reference."""

    position: int  # 0 is the source, n the n-th step
    measured: MeasuredStage
    artifact: str  # address below the artifact store
    artifact_bytes: int
    manifest_sha256: str
    reused: bool
    reference_key: str | None
    comparison: Comparison | None
    latencies: list[LatencyRow]


@dataclass(frozen=True)
class FoundRun:
    """A finished run that this one starts from or compares with."""

    last_key: str
    reference_key: str | None
