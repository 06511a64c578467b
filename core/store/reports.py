"""Reports: pages that users write for their project. The caller owns the session and its commit."""

from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from core.store.clock import now
from core.store.models import Report, User
from core.store.rows import Columns, Rows


class ChangedMeanwhileError(ValueError):
    """Someone else has changed the report since it was read."""


_COLUMNS = (Report.id, Report.title, Report.owner_id, User.name.label("owner"), Report.edition, Report.changed_at)


def add_report(session: Session, *, project_id: int, owner_id: int, title: str, text: str = "") -> Report:
    """Add a new report."""
    report = Report(project_id=project_id, owner_id=owner_id, title=title, text=text)
    session.add(report)
    session.flush()
    return report


def find_report(session: Session, report_id: int) -> Report | None:
    """The report, None if there is none."""
    return session.get(Report, report_id, populate_existing=True)


def read_report(session: Session, project_id: int, report_id: int) -> Columns | None:
    """A report of the project with its text and its author's name, None if there is none."""
    query = select(*_COLUMNS, Report.text).join(User, User.id == Report.owner_id)
    return session.execute(query.where(Report.id == report_id, Report.project_id == project_id)).one_or_none()


def list_reports(session: Session, project_id: int) -> Rows:
    """The project's reports without their texts, the most recently changed first."""
    query = select(*_COLUMNS).join(User, User.id == Report.owner_id).where(Report.project_id == project_id)
    return session.execute(query.order_by(Report.changed_at.desc(), Report.id.desc())).all()


def change_report(session: Session, report_id: int, edition: int, *, title: str, text: str) -> None:
    """Replace a report's contents; raises ChangedMeanwhileError if it is no longer at this edition."""
    changed = session.execute(
        update(Report)
        .where(Report.id == report_id, Report.edition == edition)
        .values(title=title, text=text, edition=Report.edition + 1, changed_at=now())
    )
    if cast("CursorResult[Any]", changed).rowcount != 1:
        raise ChangedMeanwhileError(
            "Someone else has changed this report since you opened it. Copy your text and reopen it."
        )


def delete_report(session: Session, report: Report) -> None:
    """Delete a report."""
    session.delete(report)
    session.flush()
