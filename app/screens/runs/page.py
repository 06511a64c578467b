"""All runs of the project: filtered, sorted and paged by the store; every choice is URL state."""

import math
from collections.abc import Callable
from functools import partial

import streamlit as st

from app.actions import annotations
from app.actions import runs as actions
from app.actions.actor import Actor
from app.components import refusal_toast, row_table
from app.components import views_menu as views
from app.components.stars import set_stars
from app.exports import buttons, frames
from app.queries.runs import count_runs, forget_runs, load_choices, load_runs, read_all_runs
from app.queries.stars import load_stars
from app.screens.runs import table
from app.text import formats
from app.text.stage_references import MOST
from app.web import identity, navigation, url_state
from core.store.listing import ORDERS, Order, RunFilter
from core.store.models import RunStatus

FILTERS = {"model": "models", "task": "tasks", "technique": "techniques", "owner": "owners", "tag": "tags"}

actor = identity.require_actor()
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.title("Runs")
    st.space("stretch")
    corner = st.container(width="content")
    if st.button("Refresh", icon=":material/refresh:"):
        forget_runs()

choices = load_choices(actor.project.id)
if not choices["models"]:
    st.info("This project has no runs yet.")
    st.page_link("screens/submit/page.py", label="Submit your first run", icon=":material/add_circle:")
    st.stop()


filters = {name: url_state.text(name) for name in FILTERS}
starred = url_state.flag("starred", False)
n_filters = sum(map(bool, filters.values())) + starred
with st.container(horizontal=True, vertical_alignment="bottom"):
    text = st.text_input(
        "Search", placeholder="name, recipe, model, task or tags", key="text", bind="query-params", width=305
    )
    statuses = st.pills(
        "Status", [s.value for s in RunStatus], selection_mode="multi", key="status", bind="query-params"
    )
    st.space("stretch")
    more = st.popover(
        f"Filters ({n_filters})" if n_filters else "Filters", icon=":material/tune:", key="filters", on_change="rerun"
    )
if more.open:  # its widgets take time to draw
    with more:
        for name, offered in FILTERS.items():
            options = choices[offered]
            if filters[name] and filters[name] not in options:
                options = [filters[name], *options]
            if options:
                picker = url_state.widget(name, filters[name] or None)
                st.selectbox(name.capitalize(), options, index=None, placeholder="all", **picker)
        st.toggle("Only runs starred by me", **url_state.widget("starred", starred))
        st.button("Clear", disabled=not n_filters, on_click=url_state.forget, args=(*FILTERS, "starred"))
if n_filters:
    active = [f"{name} {formats.plain(value)}" for name, value in filters.items() if value]
    st.caption("Only " + ", ".join([*active, *(["starred by you"] if starred else [])]) + ".")

chosen = RunFilter(
    actor.project.id,
    statuses=tuple(map(RunStatus, statuses)),
    owner=filters["owner"],
    model=filters["model"],
    task=filters["task"],
    technique=filters["technique"],
    tag=filters["tag"],
    text=text,
    starred_by=actor.user.id if starred else None,
)
order: Order = next((order for order in ORDERS if order == st.query_params.get("sort")), "newest")
with corner:
    settings = {"text": text, "status": statuses, **filters, "starred": starred or None, "sort": order}
    views.show("runs", settings, actor)
found = count_runs(chosen)
if not found:
    st.info("No runs match. Remove a filter.")
    st.stop()

bar = st.container(horizontal=True, vertical_alignment="center")
listing = st.container()
with st.container(horizontal=True, vertical_alignment="center"):
    pages = st.container(width="content")
    st.space("stretch")
    page_size = st.segmented_control(
        "Rows per page", [50, 100, 200], default=50, required=True, key="rows", bind="query-params", width="content"
    )
n_pages = math.ceil(found / page_size)
page = min(pages.pagination(n_pages, key="page", bind="query-params"), n_pages)
runs = load_runs(chosen, order, page, page_size)
stars = load_stars(actor.user.id, tuple(run["id"] for run in runs))


def sort(order: str) -> None:
    """Store the sort order of the clicked header in the URL."""
    if order in ORDERS:
        st.query_params["sort"] = order


with listing:
    ticked = row_table.show(
        table.COLUMNS,
        table.make_table(runs, stars=stars),
        key="runs",  # the same for all rows, so that a click on a header of the previous table still counts
        caption="Runs",
        order=order,
        on_order=sort,
        selectable=True,
    )
selected = [run for run in runs if run["id"] in ticked]
unfinished = [run["id"] for run in selected if run["status"] in (RunStatus.QUEUED, RunStatus.RUNNING)]
ended = [run["id"] for run in selected if run["id"] not in unfinished]


def act(change: Callable[[Actor, list[int]], int], words: str, run_ids: list[int]) -> None:
    """Perform a button's action and report the result."""
    with refusal_toast.show_refusals():
        changed = change(actor, run_ids)
        st.toast(f"{formats.plural(changed, 'run')} {words}.", icon=":material/check_circle:")
    forget_runs()


def tag(name: str, actor: Actor, run_ids: list[int]) -> int:
    """Tag runs, which makes them a group."""
    for run_id in run_ids:
        annotations.tag(actor, run_id, name)
    return len(run_ids)


with bar:
    first = (page - 1) * page_size + 1
    st.markdown(f"**{formats.plural(found, 'run')}**, showing {first} to {first + len(runs) - 1}")
    st.space("stretch")
    if selected:
        measured = [run["id"] for run in selected if run["last"]]
        if st.button(
            f"Compare {len(measured)}" if len(measured) > 1 else "Compare",
            icon=":material/compare_arrows:",
            disabled=not 1 < len(measured) <= MOST,
        ):
            navigation.go(f"compare?runs={','.join(map(str, sorted(measured)))}")
        ids = [run["id"] for run in selected]
        if st.button("Provenance", icon=":material/account_tree:"):
            navigation.go(f"provenance?of={','.join(map(str, sorted(ids)))}")
        star = not stars.issuperset(ids)
        st.button(
            f"{'Star' if star else 'Unstar'} {len(ids)}",
            icon=":material/star:",
            on_click=partial(act, partial(set_stars, starred=star), "starred" if star else "unstarred", ids),
        )
        with (
            st.popover(f"Tag {len(ids)}", icon=":material/sell:", disabled=not actor.may_submit),
            st.form("tag", border=False, clear_on_submit=True),
        ):
            name = st.text_input(
                "Tag",
                max_chars=60,
                placeholder="a name for the group",
                help="Runs with the same tag form a group. Filter by the tag to compare them.",
            )
            if st.form_submit_button("Tag", type="primary") and name.strip():
                act(partial(tag, name), "tagged", ids)
        for label, icon, what, words, ids in (
            ("Cancel", "cancel", actions.cancel, "cancelled or stopping", unfinished),
            ("Requeue", "replay", actions.requeue, "requeued", ended),
        ):
            st.button(
                f"{label} {len(ids)}" if ids else label,
                icon=f":material/{icon}:",
                disabled=not ids or not actor.may_submit,
                on_click=partial(act, what, words, ids),
            )
    else:
        st.caption(
            "Click a number to open the run. Select rows to compare, star, cancel or requeue them.", width="content"
        )
    buttons.show(
        "slimboard-runs",
        buttons.offer_table(lambda: frames.frame_runs(read_all_runs(chosen, order))),
        f"All {formats.plural(found, 'run')} that match the filters, as raw numbers.",
    )
