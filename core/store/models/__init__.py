"""The tables, by subject. Times are seconds since 1970 (UTC) by the database's clock."""

from core.store.models.base import Base
from core.store.models.board import Champion, Favourite, Note, Report, SavedView, Tag
from core.store.models.people import Membership, Project, Role, User
from core.store.models.runs import (
    Event,
    Point,
    Run,
    RunNeed,
    RunSource,
    RunTechnique,
)
from core.store.models.stages import Artifact, Latency, OperatingPoint, RunStage, Stage
from core.store.models.workers import PublishedTechnique, SpecCheck, Worker
from core.store.names import UNFINISHED, FailureClass, RunStatus

__all__ = [
    "UNFINISHED",
    "Artifact",
    "Base",
    "Champion",
    "Event",
    "FailureClass",
    "Favourite",
    "Latency",
    "Membership",
    "Note",
    "OperatingPoint",
    "Point",
    "Project",
    "PublishedTechnique",
    "Report",
    "Role",
    "Run",
    "RunNeed",
    "RunSource",
    "RunStage",
    "RunStatus",
    "RunTechnique",
    "SavedView",
    "SpecCheck",
    "Stage",
    "Tag",
    "User",
    "Worker",
]
