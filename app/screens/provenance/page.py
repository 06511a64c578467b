"""The provenance tree of stages and runs, each shared stage drawn once."""

import re

import streamlit as st

from app.charts import provenance as charts
from app.charts.provenance_tree import grow
from app.components import views_menu as views
from app.queries.provenance import load_family, load_newest
from app.queries.runs import load_choices
from app.text import formats
from app.web import identity, navigation
from core.store.listing import RunFilter

MOST = 9  # digits of a run's number

actor = identity.require_actor()
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.title("Provenance")
    st.space("stretch")
    corner = st.container(width="content")

if not load_choices(actor.project.id)["models"]:
    st.info("This project has no runs yet. Runs appear here with the stages that they share.")
    st.page_link("screens/submit/page.py", label="Submit your first run", icon=":material/add_circle:")
    st.stop()

first, second, third = st.columns([2, 2, 1], vertical_alignment="bottom")
named = first.text_input(
    "Runs",
    key="of",
    bind="query-params",
    placeholder="newest runs",
    help="Run numbers, such as 12, 15. Shows these runs, their ancestors and descendants, and runs that share a stage "
    "with them.",
)
text = second.text_input(
    "Search",
    key="words",
    bind="query-params",
    placeholder="name, recipe, model, task or tags",
    disabled=bool(named.strip()),
)
limit = third.segmented_control(
    "Show at most", [50, 100, 200], default=50, required=True, key="most", bind="query-params"
)
with corner:
    views.show("provenance", {"of": named, "words": text, "most": str(limit)}, actor)
words = [word for word in re.split(r"[\s,;]+", named.strip()) if word]
wrong = [word for word in words if not (word.isdecimal() and len(word) <= MOST)]
if wrong:
    st.error(f"“{formats.plain(wrong[0])}” is not a run number. Write runs as 12, 15.", icon=":material/error:")
    st.stop()

asked = tuple(dict.fromkeys(map(int, words)))
if asked:
    family = load_family(actor.project.id, asked, limit, relatives=True)
else:
    newest = load_newest(RunFilter(actor.project.id, text=text), limit)
    family = load_family(actor.project.id, newest, 2 * limit, relatives=False)
if family.stages.empty:
    st.info("This project has no such run." if asked else "No runs match. Try other words.")
    st.stop()
tree = grow(family.stages, family.sources)
n_drawn, n_found = len(tree.leaves), family.n_runs
if n_found > n_drawn:
    st.caption(f"Showing {n_drawn} of {n_found} related runs: the requested ones, their ancestors, then the newest.")

st.caption(
    "Marks are stages; lines lead to the stages made from them, thicker if more runs share them. Each row ends at a "
    "run with the score and size of its last stage. Dashed lines lead from teacher to student. Click a stage or a run "
    "to open it."
)
chart = charts.draw_provenance(tree, asked, st.context.theme.type or "light")
event = st.altair_chart(
    chart, on_select="rerun", selection_mode=[charts.STAGE, charts.RUN], key="tree", width="stretch"
)
picked = [row["run_id"] for name in (charts.STAGE, charts.RUN) for row in event.selection.get(name, [])]
if picked:
    navigation.go(f"run?run={picked[0]}")
