"""All runs of the project: filtered, sorted and paged by the store; every choice stands in the address."""

import math
from collections.abc import Callable
from functools import partial

import streamlit as st

from app import actions, data, formats, identity, runs_table
from app.compare_page.address import MOST
from app.exports import buttons, frames
from core.store.listing import ORDERS, RunFilter
from core.store.models import RunStatus

user, project = identity.user(), identity.project()
head, again = st.columns([6, 1], vertical_alignment="bottom")
head.title("Runs")
if again.button("Refresh", icon=":material/refresh:", width="stretch"):
    data.forget_runs()

choices = data.load_choices(project.id)
if not choices["models"]:
    st.info("No run was submitted in this project yet.")
    st.page_link("screens/submit.py", label="Submit a first run", icon=":material/add_circle:")
    st.stop()


def choice(label: str, options: list[str], key: str) -> str:
    """A filter by one value; empty where all are shown."""
    return st.selectbox(label, options, index=None, placeholder="all", key=key, bind="query-params", width=142) or ""


with st.container(horizontal=True, vertical_alignment="bottom"):
    text = st.text_input(
        "Search", placeholder="words of name, recipe, model, task or tags", key="text", bind="query-params", width=305
    )
    model = choice("Model", choices["models"], "model")
    task = choice("Task", choices["tasks"], "task")
    technique = choice("Technique", choices["techniques"], "technique")
    owner = choice("Owner", choices["owners"], "owner")
with st.container(horizontal=True, vertical_alignment="bottom"):
    statuses = st.pills(
        "Status", [s.value for s in RunStatus], selection_mode="multi", key="status", bind="query-params"
    )
    tag = choice("Tag", choices["tags"], "tag") if choices["tags"] else ""
    st.space("stretch")
    order = st.selectbox("Sort by", list(ORDERS), key="sort", bind="query-params", width=142)

chosen = RunFilter(
    project.id,
    statuses=tuple(map(RunStatus, statuses)),
    owner=owner,
    model=model,
    task=task,
    technique=technique,
    tag=tag,
    text=text,
)
found = data.count_runs(chosen)
if not found:
    st.info("No run matches. Remove a filter.")
    st.stop()

bar = st.container(horizontal=True, vertical_alignment="center")
listing = st.container()
with st.container(horizontal=True, vertical_alignment="center"):
    pages = st.container(width="content")
    st.space("stretch")
    page_size = st.selectbox(
        "Rows on a page", [50, 100, 200], key="rows", bind="query-params", label_visibility="collapsed", width=90
    )
    st.caption("rows on a page", width="content")
n_pages = math.ceil(found / page_size)
page = min(pages.pagination(n_pages, key="page", bind="query-params"), n_pages)
runs = data.load_runs(chosen, order, page, page_size)

event = listing.dataframe(
    runs_table.table(runs),
    hide_index=True,
    on_select="rerun",
    selection_mode="multi-row",
    key="runs." + ",".join(str(run["id"]) for run in runs),  # other rows: nothing is selected
    column_config=runs_table.COLUMNS,
    height="content" if len(runs) <= 12 else 35 * 13 + 300,
)
selected = [runs[index] for index in event.selection.rows]
unfinished = [run["id"] for run in selected if run["status"] in (RunStatus.QUEUED, RunStatus.RUNNING)]
ended = [run["id"] for run in selected if run["id"] not in unfinished]


def act(change: Callable[[int, list[int]], int], words: str, run_ids: list[int]) -> None:
    """Do what a button asks for, and say what came of it."""
    try:
        changed = change(user.id, run_ids)
        st.toast(f"{formats.plural(changed, 'run')} {words}.", icon=":material/check_circle:")
    except actions.NotAllowed as refusal:
        st.toast(str(refusal), icon=":material/block:")
    data.forget_runs()


with bar:
    first = (page - 1) * page_size + 1
    st.markdown(f"**{formats.plural(found, 'run')}**, {first} to {first + len(runs) - 1} shown")
    st.space("stretch")
    if not selected:
        st.caption("Select rows to compare, cancel or requeue them.", width="content")
    measured = [run["id"] for run in selected if run["last"]]
    if st.button(
        f"Compare {len(measured)}" if len(measured) > 1 else "Compare",
        icon=":material/compare_arrows:",
        disabled=not 1 < len(measured) <= MOST,
    ):
        st.switch_page("screens/compare.py", query_params={"runs": ",".join(map(str, sorted(measured)))})
    for label, icon, what, words, ids in (
        ("Cancel", "cancel", actions.cancel, "cancelled or stopping", unfinished),
        ("Requeue", "replay", actions.requeue, "queued again", ended),
    ):
        st.button(
            f"{label} {len(ids)}" if ids else label,
            icon=f":material/{icon}:",
            disabled=not ids or not project.may_submit,
            on_click=partial(act, what, words, ids),
        )
    buttons.show(
        "slimboard-runs",
        buttons.tables(lambda: frames.listed(data.read_all_runs(chosen, order))),
        f"All {formats.plural(found, 'run')} that the filters leave, with raw numbers.",
    )
