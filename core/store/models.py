"""The tables. Times are seconds since 1970 (UTC) by the database's clock.

One stage is one row with its principal quantities as columns and a JSON column for what is
particular; a stage that twenty runs share is one row, and one point in every chart.
"""

import enum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.store.clock import now

BigId = BigInteger().with_variant(Integer, "sqlite")  # sizes pass 2**31; SQLite numbers rows only in an INTEGER key


class Base(DeclarativeBase):
    """Base of every table; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, int: BigId}


def _enum(values: type[enum.StrEnum]) -> Enum:
    """A short string column, the same in SQLite and Postgres, that a later value can be added to."""
    return Enum(values, native_enum=False, length=20, values_callable=lambda e: [v.value for v in e])


class RunStatus(enum.StrEnum):
    """Where a run is on its road."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING)


class FailureClass(enum.StrEnum):
    """Whose fault a failure was; only `infrastructure` and `lost` are retried."""

    OUT_OF_MEMORY = "out of memory"
    BAD_SPEC = "bad spec"
    TECHNIQUE = "technique"
    TIME_LIMIT = "time limit"
    KILLED = "killed"  # its process, from outside
    INFRASTRUCTURE = "infrastructure"
    LOST = "lost"


class Role(enum.StrEnum):
    """What a user may do in a project: look; submit and change own runs; change everything."""

    VIEWER = "viewer"
    MEMBER = "member"
    OWNER = "owner"


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[float] = mapped_column(default=now())


class Project(Base):
    __tablename__ = "project"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[float] = mapped_column(default=now())


class Membership(Base):
    __tablename__ = "membership"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[Role] = mapped_column(_enum(Role))


class Worker(Base):
    """A worker process: one device, one run at a time."""

    __tablename__ = "worker"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)  # host-device-pid
    device: Mapped[str] = mapped_column(String(10))  # cpu | gpu
    hardware: Mapped[dict[str, Any]]  # CPU model, cores, GPU name and memory, versions, kernels
    offers: Mapped[dict[str, Any]]  # technique, model and task name -> schema hash
    provides: Mapped[list[Any]]  # what techniques may require: "cpu", "cuda", ...
    started_at: Mapped[float] = mapped_column(default=now())
    last_seen_at: Mapped[float] = mapped_column(default=now())
    stopped_at: Mapped[float | None]


class Technique(Base):
    """A published technique, model source or task source: what forms and validation are made from."""

    __tablename__ = "technique"
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)  # technique | model | task
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    entry: Mapped[dict[str, Any]]  # as in core/catalogue.json
    published_at: Mapped[float] = mapped_column(default=now())


class Run(Base):
    """One recipe on one model and one task with one seed."""

    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    owner_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    name: Mapped[str] = mapped_column(String(200), default="")
    spec: Mapped[dict[str, Any]]
    spec_hash: Mapped[str] = mapped_column(String(64), index=True)  # identical runs are found by it
    model: Mapped[str] = mapped_column(String(300))  # the sources' names, for filters
    task: Mapped[str] = mapped_column(String(300))
    recipe: Mapped[str] = mapped_column(Text)  # "train → sr_ste → rtn", for tables
    search: Mapped[str] = mapped_column(String(1000), default="")  # lower case: name, recipe, model, task, tags
    device: Mapped[str] = mapped_column(String(10), default="any")  # any | cpu | gpu
    status: Mapped[RunStatus] = mapped_column(_enum(RunStatus), default=RunStatus.QUEUED)
    priority: Mapped[int] = mapped_column(default=0)  # higher first
    position: Mapped[float] = mapped_column(default=now())  # lower first among equal priorities
    cancel_requested: Mapped[bool] = mapped_column(default=False)

    attempt: Mapped[int] = mapped_column(default=0)  # every write of a child is conditional on it
    attempts_left: Mapped[int] = mapped_column(default=3)
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("worker.id"))
    lease_until: Mapped[float | None]
    computing_key: Mapped[str | None] = mapped_column(String(64), unique=True)  # the stage it alone computes now
    next_key: Mapped[str | None] = mapped_column(String(64))  # the stage it waits for another run to compute

    progress: Mapped[float] = mapped_column(default=0.0)  # 0..1 of the whole run
    progress_text: Mapped[str] = mapped_column(String(300), default="")
    seconds_left: Mapped[float | None]
    compute_seconds: Mapped[float] = mapped_column(default=0.0)
    environment: Mapped[dict[str, Any]] = mapped_column(default=dict)  # versions, hardware, git commit

    failure: Mapped[FailureClass | None] = mapped_column(_enum(FailureClass))
    failure_message: Mapped[str] = mapped_column(Text, default="")
    cloned_from_id: Mapped[int | None] = mapped_column(ForeignKey("run.id"))
    created_at: Mapped[float] = mapped_column(default=now())
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]

    __table_args__ = (
        Index("ix_run_queue", "status", priority.desc(), "position", "id"),
        Index("ix_run_project_status", "project_id", "status", "id"),
        Index("ix_run_project_owner", "project_id", "owner_id", "id"),
        Index("ix_run_project_model", "project_id", "model", "id"),
        Index("ix_run_project_task", "project_id", "task", "id"),
        Index("ix_run_project_search", "project_id", "search"),
        Index("ix_run_worker", "worker_id", "status"),
    )


class RunNeed(Base):
    """What a worker must provide to take a run: "cuda", "technique:rtn", "technique:rtn#<schema hash>"."""

    __tablename__ = "run_need"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    need: Mapped[str] = mapped_column(String(200), primary_key=True)


class RunSource(Base):
    """Which earlier runs a run names in its spec: the model it starts from, a teacher, its reference."""

    __tablename__ = "run_source"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(60), primary_key=True)  # "model", "teacher", "reference" ...
    position: Mapped[int] = mapped_column(primary_key=True)  # of the stage that needs it
    __table_args__ = (Index("ix_run_source_source_id_run_id", "source_id", "run_id"),)


class RunTechnique(Base):
    """Which techniques a run uses, methods inside a training included: for filters."""

    __tablename__ = "run_technique"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    technique: Mapped[str] = mapped_column(String(100), primary_key=True)
    __table_args__ = (Index("ix_run_technique_technique_run_id", "technique", "run_id"),)


class Stage(Base):
    """The subject after a step, measured. What of it does not depend on the hardware."""

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
    """Which run has which stage at which position, against which reference."""

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
    __table_args__ = (Index("ix_run_stage_points", "project_id", "stage_id", "run_id", "reference_stage_id"),)


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
    """How long a stage took here, alternated with its reference, and under which conditions."""

    __tablename__ = "latency"
    id: Mapped[int] = mapped_column(primary_key=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    operating_point_id: Mapped[int | None] = mapped_column(ForeignKey("operating_point.id", ondelete="CASCADE"))
    reference_stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id"))
    hardware: Mapped[str] = mapped_column(String(200))
    software: Mapped[str] = mapped_column(String(200))  # torch version and Slimboard's
    runtime: Mapped[str] = mapped_column(String(40))  # eager, compile, onnxruntime ...
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


class Point(Base):
    """One point of a curve."""

    __tablename__ = "point"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    curve: Mapped[str] = mapped_column(String(100), primary_key=True)  # "2/loss": position / name
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
    __table_args__ = {"sqlite_with_rowid": False}  # the key is the order in which curves are read


class Event(Base):
    """A line of a run's log."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    at: Mapped[float] = mapped_column(default=now())
    level: Mapped[str] = mapped_column(String(10))  # info | warning | error | output
    message: Mapped[str] = mapped_column(Text)
    __table_args__ = (Index("ix_event_run_id_id", "run_id", "id"),)


class Artifact(Base):
    """Where a stage's files lie."""

    __tablename__ = "artifact"
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(Text)  # relative to SLIMBOARD_ARTIFACTS
    bytes: Mapped[int]
    manifest_sha256: Mapped[str] = mapped_column(String(64))


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(default=now())


class Tag(Base):
    __tablename__ = "tag"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(60), primary_key=True, index=True)


class Favourite(Base):
    """A star that a user gave a run."""

    __tablename__ = "favourite"
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True, index=True)


class SavedView(Base):
    """A page as someone had set it, under a name: for themselves, or for all of the project."""

    __tablename__ = "saved_view"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"))
    owner_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"))
    page: Mapped[str] = mapped_column(String(20))  # "tradeoffs", "runs", "compare"
    name: Mapped[str] = mapped_column(String(100))
    query: Mapped[str] = mapped_column(Text)  # what stands after "?" in the address
    shared: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(default=now())
    __table_args__ = (UniqueConstraint("project_id", "page", "owner_id", "name"),)


class Report(Base):
    """A page that someone wrote for the project: Markdown with views of the board in it."""

    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), index=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    title: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    edition: Mapped[int] = mapped_column(
        default=1
    )  # one more with each change: nobody overwrites what they did not see
    changed_at: Mapped[float] = mapped_column(default=now())


class Champion(Base):
    """That someone made a stage the champion of a device, or (without a stage) took the title away; the last counts."""

    __tablename__ = "champion"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"))
    task_hash: Mapped[str] = mapped_column(String(64))
    hardware: Mapped[str] = mapped_column(String(200))  # the device: what executes the model, and how it is called
    runtime: Mapped[str] = mapped_column(String(40))
    threads: Mapped[int]
    batch: Mapped[int]
    length: Mapped[int | None]
    phase: Mapped[str] = mapped_column(String(20))
    stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("run.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    note: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[float] = mapped_column(default=now())
    __table_args__ = (Index("ix_champion_project_id_task_hash", "project_id", "task_hash", "id"),)


class SpecCheck(Base):
    """What a worker says about a spec after building it on the meta device, by the spec's hash."""

    __tablename__ = "spec_check"
    spec_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict[str, Any]]
    asked_at: Mapped[float] = mapped_column(default=now())
    answered_at: Mapped[float | None]
    problems: Mapped[list[Any]] = mapped_column(default=list)  # field, value, message, remedy of each; empty: fine
