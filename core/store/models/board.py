"""Data entered by users: notes, tags, stars, saved views, reports and champions."""

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.store.clock import now
from core.store.models.base import Base


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
    """The saved state of a page under a name, private or shared with the project."""

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
    """A page that a user wrote for the project: Markdown with embedded views."""

    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"), index=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    title: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    # one more with each change: nobody overwrites what they did not see
    edition: Mapped[int] = mapped_column(default=1)
    changed_at: Mapped[float] = mapped_column(default=now())


class Champion(Base):
    """An entry that makes a stage the champion of a device or, without a stage, withdraws it; the last one counts."""

    __tablename__ = "champion"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id", ondelete="CASCADE"))
    task_hash: Mapped[str] = mapped_column(String(64))
    hardware: Mapped[str] = mapped_column(String(200))  # the device: what executes the model, and how it is called
    runtime: Mapped[str] = mapped_column(String(200))
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
