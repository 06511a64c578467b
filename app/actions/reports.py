"""Writing, changing and deleting reports."""

from app.actions.actor import Actor, NotAllowed, require_member
from core.store import reports
from core.store.engine import session
from core.store.models import Role

LONGEST_TITLE = 200


def add_report(actor: Actor, title: str) -> int:
    """Start a report and return its number; every member may."""
    with session() as s:
        require_member(s, actor, actor.project.id, "write a report")
        return int(reports.add_report(s, project_id=actor.project.id, owner_id=actor.user.id, title=_title(title)).id)


def change_report(actor: Actor, report_id: int, edition: int, title: str, text: str) -> None:
    """Replace a report's title and text; every member may. Raises ChangedMeanwhileError for an outdated edition."""
    with session() as s:
        report = reports.find_report(s, report_id)
        if report is None:
            raise NotAllowed("This report does not exist here.")
        require_member(s, actor, report.project_id, "change a report")
        reports.change_report(s, report_id, edition, title=_title(title), text=text)


def delete_report(actor: Actor, report_id: int) -> None:
    """Delete a report; its author and the project's owners may."""
    with session() as s:
        report = reports.find_report(s, report_id)
        if report is None:
            raise NotAllowed("This report does not exist here.")
        role = require_member(s, actor, report.project_id, "delete a report")
        if role != Role.OWNER and report.owner_id != actor.user.id:
            raise NotAllowed("This report belongs to someone else. Only they or an owner of the project can delete it.")
        reports.delete_report(s, report)


def _title(title: str) -> str:
    return " ".join(title.split())[:LONGEST_TITLE] or "Untitled"
