"""Workers: their heartbeats, the techniques that they provide, and their answers to preflight checks."""

from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.store.clock import now
from core.store.models.base import Base


class Worker(Base):
    """A worker process: one device, one run at a time."""

    __tablename__ = "worker"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)  # host-device-pid
    device: Mapped[str] = mapped_column(String(10))  # cpu | gpu
    hardware: Mapped[dict[str, Any]]  # CPU model, cores, GPU name and memory, versions, kernels
    offers: Mapped[dict[str, Any]]  # name of a technique, model, task or runtime -> schema hash
    provides: Mapped[list[Any]]  # what techniques and runtimes may require: "cpu", "cuda", ...
    started_at: Mapped[float] = mapped_column(default=now())
    last_seen_at: Mapped[float] = mapped_column(default=now())
    stopped_at: Mapped[float | None]


class PublishedTechnique(Base):
    """A published technique, model source, task source or runtime, for forms and validation."""

    __tablename__ = "technique"
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)  # technique | model | task | runtime
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    entry: Mapped[dict[str, Any]]  # as in core/catalogue.json
    published_at: Mapped[float] = mapped_column(default=now())


class SpecCheck(Base):
    """A worker's preflight check of a spec, by the spec's hash."""

    __tablename__ = "spec_check"
    spec_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict[str, Any]]
    asked_at: Mapped[float] = mapped_column(default=now())
    answered_at: Mapped[float | None]
    problems: Mapped[list[Any]] = mapped_column(default=list)  # field, value, message, remedy of each; empty: fine
