"""Measured results of a stage, as passed from the pipeline to the store. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCE = "source"  # technique and family of a stage that no step led to; its label is the model's source
CHECKPOINT = "checkpoint"  # in a source's details: dtype and bytes of the tensors in the user's own files
CALIBRATION = "calibration"  # in a stage's details: what it drew, and what its layers saw
SIGNIFICANT = 0.05  # p-value below which a difference counts as more than chance


@dataclass(frozen=True)
class LatencyRow:
    """The latency of a stage, timed alternately with its reference, and its conditions."""

    hardware: str
    software: str
    runtime: str  # with the settings that differ from their defaults: "eager", "compile mode max-autotune"
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
class Fidelity:
    """How close a stage is to its reference on the same test examples; fields as in `run_stage`, None: not measured.

    Of predictions: one is an example's class, or a token that the score counts. The divergence is KL(reference ‖ stage)
    in nats, of which low and high are the mean's 95 % interval (None: too few examples). Shares are in percent of the
    predictions. Of embeddings: cosines with the reference's, and the share of each text's neighbours that is kept.
    """

    kl: float | None = None
    kl_low: float | None = None
    kl_high: float | None = None
    kl_p99: float | None = None
    top1_agreement: float | None = None
    right_to_wrong: float | None = None  # the reference is right, the stage wrong
    wrong_to_right: float | None = None
    kl_max: float | None = None  # the largest of any prediction
    cosine: float | None = None  # mean over the texts
    cosine_low: float | None = None
    cosine_high: float | None = None
    cosine_min: float | None = None
    neighbours_kept: float | None = None  # % of the 10 nearest in the reference
    neighbours_kept_low: float | None = None
    neighbours_kept_high: float | None = None

    @property
    def flips(self) -> float | None:
        """Share of the predictions that changed between right and wrong."""
        if self.right_to_wrong is None or self.wrong_to_right is None:
            return None
        return self.right_to_wrong + self.wrong_to_right


@dataclass(frozen=True)
class MeasuredStage:
    """A stage with everything that does not depend on the hardware; fields as the columns of `stage`."""

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
    checkpoint_bytes: int | None = None  # of the user's own files that a source was loaded from


@dataclass(frozen=True)
class FoundStage:
    """A recorded stage that a run may reuse."""

    stage_id: int
    measured: MeasuredStage
    manifest_sha256: str | None  # of the artifact that was measured; None where that is gone
    latencies: list[tuple[str | None, LatencyRow]] = field(default_factory=list)  # with the reference's key
    fidelities: dict[str, Fidelity] = field(default_factory=dict)  # by the reference's key


@dataclass(frozen=True)
class StageRecord:
    """A stage at its position in a run, with its comparison to the run's reference."""

    position: int  # 0 is the source, n the n-th step
    measured: MeasuredStage
    artifact: str  # address below the artifact store
    artifact_bytes: int
    manifest_sha256: str
    reused: bool
    reference_key: str | None
    comparison: Comparison | None
    latencies: list[LatencyRow]
    fidelity: Fidelity | None = None  # to the reference


@dataclass(frozen=True)
class FoundRun:
    """A finished run that this one starts from or compares with."""

    last_key: str
    reference_key: str | None


def reached_share(details: Mapping[str, Any] | None) -> float | None:
    """The share of the model's parameters that a stage's step reached; None for a source, and before it was kept."""
    reached = (details or {}).get("reached")
    return None if reached is None else float(reached["share"])
