"""Runs: their specs, needs and techniques, curves and logs."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.store.clock import now
from core.store.models.base import Base, short_enum
from core.store.names import FailureClass, RunStatus


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
    status: Mapped[RunStatus] = mapped_column(short_enum(RunStatus), default=RunStatus.QUEUED)
    position: Mapped[float] = mapped_column(default=now())  # in the queue, lower first
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

    failure: Mapped[FailureClass | None] = mapped_column(short_enum(FailureClass))
    failure_message: Mapped[str] = mapped_column(Text, default="")
    cloned_from_id: Mapped[int | None] = mapped_column(ForeignKey("run.id"))
    created_at: Mapped[float] = mapped_column(default=now())
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]

    __table_args__ = (
        Index("ix_run_queue", "status", "position", "id"),
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
    """The earlier runs in a run's spec: the model that it starts from, a teacher, its reference."""

    __tablename__ = "run_source"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(60), primary_key=True)  # "model", "teacher", "reference" ...
    position: Mapped[int] = mapped_column(primary_key=True)  # of the stage that needs it
    __table_args__ = (Index("ix_run_source_source_id_run_id", "source_id", "run_id"),)


class RunTechnique(Base):
    """The techniques of a run, including methods inside trainings; for filters."""

    __tablename__ = "run_technique"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    technique: Mapped[str] = mapped_column(String(100), primary_key=True)
    __table_args__ = (Index("ix_run_technique_technique_run_id", "technique", "run_id"),)


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
