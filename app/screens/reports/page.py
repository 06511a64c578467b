"""Reports: text about runs with embedded views of other pages."""

import html
from collections.abc import Callable
from typing import Any

import streamlit as st

from app.actions import reports
from app.actions.actor import NotAllowed
from app.components import wrapped_table
from app.exports.document import Written, document
from app.queries.reports import forget_reports, load_report, load_reports
from app.queries.views import load_views
from app.screens.reports.parser import Embedded, parse, write_line
from app.screens.reports.render import NotShownError, draw
from app.text import formats, markdown
from app.web import identity
from core.store.reports import ChangedMeanwhileError

LONGEST = 200_000
HELP = "Put each view on its own line: {{compare?runs=3,7}}, or the URL of a page in double braces."

actor = identity.require_actor()


def show_list() -> None:
    """All reports of the project, and a button for a new one."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.title("Reports")
        st.space("stretch")
        if st.button("New report", icon=":material/add:", type="primary", disabled=not actor.may_submit):
            number = reports.add_report(actor, "Untitled")
            forget_reports()
            st.query_params.update(report=str(number), edit="yes")
            st.rerun()
    found = load_reports(actor.project.id)
    if not found:
        st.info("No reports yet. A report combines text with charts and tables from other pages.")
    for report in found:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.page_link(
                "screens/reports/page.py",
                label=formats.plain(report["title"]),
                icon=":material/article:",
                query_params={"report": str(report["id"])},
            )
            st.caption(f"{formats.plain(report['owner'])}, {formats.ago(report['changed_at'])}", width="content")


def show_report(report: dict[str, Any]) -> None:
    """A report as it is read."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.title(formats.plain(report["title"]), anchor=False)
        st.space("stretch")
        st.page_link("screens/reports/page.py", label="All reports", icon=":material/list:", width="content")
        if st.button("Edit", icon=":material/edit:", disabled=not actor.may_submit):
            st.query_params["edit"] = "yes"
            st.rerun()
        st.download_button(
            "HTML",
            lambda: export(report),
            file_name=f"report-{report['id']}.html",
            mime="text/html",
            on_click="ignore",
            icon=":material/download:",
            help="The report as one file whose charts work offline.",
        )
    st.caption(f"{formats.plain(report['owner'])}, changed {formats.ago(report['changed_at'])}")
    if not report["text"].strip():
        st.info("This report is empty. Press Edit to write it.")
    with st.container(key="report"):
        for number, part in enumerate(parse(report["text"])):
            if isinstance(part, str):
                st.html(markdown.html(part))
            else:
                show_view(part, number)


def show_view(part: Embedded, number: int) -> None:
    """A view embedded in a report, or why it cannot be shown."""
    try:
        drawn = draw(part, actor.project.id, st.context.theme.type or "light")
    except NotShownError as reason:
        st.warning(f"{formats.plain(write_line(part.page, part.query))}: {formats.plain(str(reason))}")
        return
    for table in drawn.tables:
        wrapped_table.show(table)
    if drawn.words:
        st.caption(formats.plain(drawn.words))
    for at, chart in enumerate(drawn.charts):
        st.altair_chart(chart, key=f"chart {number}.{at}", width="stretch")


def export(report: dict[str, Any]) -> bytes:
    """The report as one HTML file."""
    blocks: list[Any] = []
    for part in parse(report["text"]):
        if isinstance(part, str):
            blocks.append(Written(markdown.html(part)))
            continue
        try:
            drawn = draw(part, actor.project.id)
        except NotShownError as reason:
            blocks.append(Written(markdown.html(f"*{formats.plain(str(reason))}*")))
            continue
        tables = [table.map(wrapped_table.wrap_cell) for table in drawn.tables]
        blocks += [*tables, Written(f"<p>{html.escape(drawn.words)}</p>"), *drawn.charts]
    return document(report["title"], blocks)


def edit(report: dict[str, Any]) -> None:
    """The form to edit a report."""
    key = f"text of report {report['id']}.{report['edition']}"
    st.title("Edit report")
    title = st.text_input("Title", report["title"], max_chars=reports.LONGEST_TITLE)
    views = {view["id"]: view for view in load_views(actor.project.id, actor.user.id)}

    def insert() -> None:
        view = views.get(st.session_state.pop("inserted", None))
        if view is not None:
            before = st.session_state.get(key, report["text"]).rstrip()
            st.session_state[key] = f"{before}\n\n{write_line(view['page'], view['query'])}\n"

    st.selectbox(
        "Insert a saved view",
        list(views),
        index=None,
        key="inserted",
        format_func=lambda number: f"{views[number]['page']}: {formats.plain(views[number]['name'])}",
        placeholder="from Trade-offs, Runs, Compare or Provenance",
        help=HELP,
        on_change=insert,
    )
    text = st.text_area("Text (Markdown)", report["text"], key=key, height=480, max_chars=LONGEST)
    with st.container(horizontal=True):
        if st.button("Save", type="primary"):
            act(reports.change_report, actor, report["id"], report["edition"], title, text)
        if st.button("Cancel"):
            leave()
        st.space("stretch")
        with st.popover("Delete", icon=":material/delete:"):
            st.caption("This deletes the report for everyone. It cannot be undone.")
            if st.button("Delete report"):
                act(reports.delete_report, actor, report["id"])


def act(change: Callable[..., None], *arguments: Any) -> None:
    """Perform a button's action and leave the form, or show why it is refused."""
    try:
        change(*arguments)
    except (NotAllowed, ChangedMeanwhileError) as refusal:
        st.error(formats.plain(str(refusal)), icon=":material/block:")
        return
    finally:
        forget_reports()
    leave()


def leave() -> None:
    """Leave the form."""
    st.query_params.pop("edit", None)
    st.rerun()


asked = st.query_params.get("report", "")
report = load_report(actor.project.id, int(asked)) if asked.isdecimal() else None
if report is None:
    if asked:
        st.info(f"This project has no report {asked}." if asked.isdecimal() else "The URL names no report.")
    show_list()
elif st.query_params.get("edit") and actor.may_submit:
    edit(report)
else:
    show_report(report)
