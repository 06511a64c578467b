"""Results: stages, their positions in runs, latencies and artifacts.

One stage is one row with its main quantities as columns and a JSON column for details; a stage that
twenty runs share is one row, and one point in every chart.
"""

from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from core.store.clock import now
from core.store.models.base import Base


class Stage(Base):
    """The measured subject after a step: everything that does not depend on the hardware."""

    __tablename__ = "stage"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    technique: Mapped[str] = mapped_column(String(100))  # the step's; "source" for a model as it came
    family: Mapped[str] = mapped_column(String(40))
    label: Mapped[str] = mapped_column(String(200))  # "rtn 8-bit per channel"
    settings: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(String(300))
    task: Mapped[str] = mapped_column(String(300))
    task_hash: Mapped[str] = mapped_column(String(64))
    trained: Mapped[bool]  # untrained stages are not drawn
    compressed: Mapped[bool]  # False: may serve as the reference

    size_bytes: Mapped[int]  # tensor payload of the packed artifact
    checkpoint_bytes: Mapped[int | None]  # of the user's own files that a source was loaded from
    score_name: Mapped[str] = mapped_column(String(60))
    score_unit: Mapped[str] = mapped_column(String(30))
    higher_is_better: Mapped[bool]
    score: Mapped[float]  # on the test split
    score_low: Mapped[float]  # 95 % bootstrap interval
    score_high: Mapped[float]
    scores: Mapped[dict[str, Any]]  # the further scores
    parameters: Mapped[int]
    active_parameters: Mapped[int]
    nonzeros: Mapped[int]
    macs: Mapped[int]  # of one example's forward pass (of one token for a language model)
    nominal_bits: Mapped[float]  # the claim: bits a weight, and share of zeros
    nominal_sparsity: Mapped[float]
    peak_memory_bytes: Mapped[int | None]  # of a fresh process that only loads and runs
    reload_max_error: Mapped[float | None]
    details: Mapped[dict[str, Any]]  # per-layer tables and what else is particular
    seconds: Mapped[float]  # to apply the step
    created_at: Mapped[float] = mapped_column(default=now(), index=True)
    recipe_hash: Mapped[int | None]  # equal for stages that differ in their seeds only; none: of a reference alone
    seeds_hash: Mapped[int | None]
    __table_args__ = (
        Index("ix_stage_task_hash", "task_hash", "trained"),
        Index("ix_stage_recipe_hash", "recipe_hash", "seeds_hash"),
        Index("ix_stage_history", "technique", "model", "task"),
    )


class RunStage(Base):
    """The position of a stage in a run, with its reference."""

    __tablename__ = "run_stage"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)  # 0 is the source, n the n-th step
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id"), index=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))  # the run's
    reference_stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id"))
    reused: Mapped[bool]
    p_value: Mapped[float | None]  # paired test of the score against the reference
    score_delta: Mapped[float | None]
    score_delta_low: Mapped[float | None]
    score_delta_high: Mapped[float | None]
    kl: Mapped[float | None]  # mean KL(reference ‖ stage) of the test predictions, in nats
    kl_low: Mapped[float | None]
    kl_high: Mapped[float | None]
    kl_p99: Mapped[float | None]
    top1_agreement: Mapped[float | None]  # % of the predictions
    right_to_wrong: Mapped[float | None]
    wrong_to_right: Mapped[float | None]
    kl_max: Mapped[float | None]
    cosine: Mapped[float | None]  # of the test texts' embeddings with the reference's: mean
    cosine_low: Mapped[float | None]
    cosine_high: Mapped[float | None]
    cosine_min: Mapped[float | None]
    neighbours_kept: Mapped[float | None]  # % of each text's 10 nearest in the reference
    neighbours_kept_low: Mapped[float | None]
    neighbours_kept_high: Mapped[float | None]
    __table_args__ = (Index("ix_run_stage_points", "project_id", "stage_id", "run_id", "reference_stage_id"),)

    @staticmethod
    def has_fidelity(place: Any) -> ColumnElement[bool]:
        """Whether the fidelity of this row, or of an alias's, was measured."""
        return func.coalesce(place.kl, place.cosine, place.neighbours_kept).is_not(None)

    @hybrid_property
    def flips(self) -> float | None:
        """% of the predictions that changed between right and wrong."""
        return (
            None
            if self.right_to_wrong is None or self.wrong_to_right is None
            else self.right_to_wrong + self.wrong_to_right
        )

    @flips.inplace.expression
    @classmethod
    def _flips(cls) -> ColumnElement[float | None]:
        return cls.right_to_wrong + cls.wrong_to_right


class OperatingPoint(Base):
    """A setting of a stage that needs no new weights, with its own score and compute."""

    __tablename__ = "operating_point"
    id: Mapped[int] = mapped_column(primary_key=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))  # "exit_threshold"
    value: Mapped[float]
    score: Mapped[float]
    score_low: Mapped[float]
    score_high: Mapped[float]
    macs: Mapped[int]
    __table_args__ = (UniqueConstraint("stage_id", "name", "value"),)


class Latency(Base):
    """The latency of a stage, timed alternately with its reference, and its conditions."""

    __tablename__ = "latency"
    id: Mapped[int] = mapped_column(primary_key=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    operating_point_id: Mapped[int | None] = mapped_column(ForeignKey("operating_point.id", ondelete="CASCADE"))
    reference_stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id"))
    hardware: Mapped[str] = mapped_column(String(200))
    software: Mapped[str] = mapped_column(String(200))  # torch version and Slimboard's
    runtime: Mapped[str] = mapped_column(String(200))  # with its settings: "eager", "compile mode max-autotune"
    kernel: Mapped[str] = mapped_column(String(100))  # which kernel ran
    dtype: Mapped[str] = mapped_column(String(20))
    threads: Mapped[int]
    batch: Mapped[int]
    length: Mapped[int | None]  # tokens
    phase: Mapped[str] = mapped_column(String(20))  # forward | prefill | decode
    p50_ms: Mapped[float]
    p95_ms: Mapped[float]
    reference_p50_ms: Mapped[float | None]
    ratio: Mapped[float | None]  # stage / reference: below 1 is faster
    ratio_low: Mapped[float | None]
    ratio_high: Mapped[float | None]
    repeats: Mapped[int]
    disturbed: Mapped[bool]  # something else used the machine even in the repeated measurement
    contention: Mapped[float]  # share of the cores that others used meanwhile
    energy_mj: Mapped[float | None]  # millijoules of one call or token, where the hardware reports them
    reference_energy_mj: Mapped[float | None]
    __table_args__ = (
        Index(
            "ix_latency_conditions",
            "stage_id",
            "hardware",
            "runtime",
            "dtype",
            "threads",
            "batch",
            "length",
            "phase",
            "operating_point_id",
        ),
    )


class Artifact(Base):
    """The location of a stage's files."""

    __tablename__ = "artifact"
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(Text)  # relative to SLIMBOARD_ARTIFACTS
    bytes: Mapped[int]
    manifest_sha256: Mapped[str] = mapped_column(String(64))
