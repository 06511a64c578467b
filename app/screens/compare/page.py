"""Runs side by side: which is better, whether the difference is significant, and how their specs differ."""

import pandas as pd
import streamlit as st

from app.charts.curves import draw_overlay
from app.charts.deltas import draw_deltas
from app.charts.layers import compare_layers, list_quantities, make_title
from app.charts.theme import SERIES
from app.components import row_table, wrapped_table
from app.components import views_menu as views
from app.exports import buttons, frames, latex
from app.queries import compare as compared
from app.queries.catalogue import load_catalogue
from app.queries.run_details import load_curve
from app.queries.runs import load_run_titles
from app.screens.compare import latency, tables, warnings
from app.text import formats, stage_references
from app.text.stages import DISTURBED, make_curve_title
from app.web import identity

FEW = 8  # runs

actor = identity.require_actor()
with st.container(horizontal=True, vertical_alignment="bottom"):
    st.title("Compare")
    st.space("stretch")
    corner = st.container(width="content")
titles = dict(load_run_titles(actor.project.id))


def add() -> None:
    """Add the chosen run to the comparison."""
    chosen = st.session_state.pop("add", None)
    if chosen is not None:
        st.session_state["runs"] = ",".join(filter(None, [st.session_state.get("runs", "").strip(", "), str(chosen)]))


def offer_views() -> None:
    """The menu of saved views; drawn last, when the whole URL state is known."""
    quantity = st.session_state.get("quantity")
    chosen = {name: st.session_state.get(name) for name in ("conditions", "show", "curve", "log")}
    with corner:
        views.show("compare", {"runs": text, **chosen, "quantity": quantity and make_title(quantity)}, actor)


def move_to_front() -> None:
    """Make the chosen item the base."""
    chosen = st.session_state[f"base of {text}"]
    st.session_state["runs"] = ",".join([chosen, *(item for item in items["item"] if item != chosen)])


left, right = st.columns([2, 1])
text = left.text_input(
    "Runs",
    key="runs",
    bind="query-params",
    placeholder="12, 15, 15.2",
    help="Run numbers, whose last stages are compared. 15.2 is the stage of run 15 after its second step. The first "
    "run is the base.",
)
right.selectbox(
    "Add a run",
    list(titles),
    index=None,
    key="add",
    placeholder="one of the latest 200",
    format_func=lambda run_id: stage_references.title(str(run_id), formats.plain(titles[run_id])),
    on_change=add,
)
try:
    asked = stage_references.parse(text)
except stage_references.AddressError as error:
    st.error(str(error), icon=":material/error:")
    offer_views()
    st.stop()
if not titles:
    st.info("This project has no runs yet. Once it has, compare two or more of them here.")
    st.page_link("screens/submit/page.py", label="Submit your first run", icon=":material/add_circle:")
    st.stop()
if len(asked) < 2:
    st.info("Enter at least two runs, or select them on the Runs page and press Compare.")
    st.page_link("screens/runs/page.py", label="Choose runs", icon=":material/table_rows:")
    offer_views()
    st.stop()
items = compared.load_items(actor.project.id, text)
missing = [
    stage_references.name(item)
    for item in asked
    if items.empty or stage_references.name(item) not in set(items["item"])
]
if missing:
    st.warning(f"Not in this project, or no measured stages: {', '.join(missing)}.", icon=":material/help:")
if len(items) < 2:
    offer_views()
    st.stop()

latencies = latency.add_conditions(compared.load_latencies(tuple(zip(items["run_id"], items["stage_id"], strict=True))))
choose_base, choose_conditions = st.columns([1, 2])
labels = dict(zip(items["item"], items["label"], strict=True))
choose_base.selectbox(
    "Base",
    list(items["item"]),
    key=f"base of {text}",
    format_func=lambda item: stage_references.title(item, formats.plain(labels[item])),
    on_change=move_to_front,
)
kind = None
if not latencies.empty:
    kind = choose_conditions.selectbox(
        "Latency conditions",
        latency.list_conditions(latencies),
        key="conditions",
        bind="query-params",
        help="Only latencies measured under the same conditions are comparable. The most frequent come first.",
    )
items = latency.join_latencies(items, latencies, kind)

base = items.iloc[0].to_dict()
doubts = warnings.doubts(items, base)
if doubts:
    st.warning(doubts[0] if len(doubts) == 1 else "\n".join(f"- {one}" for one in doubts), icon=":material/rule:")
same_data = warnings.list_comparable(items, base)
if 1 < len(same_data) < len(items):
    st.button(
        f"Keep only the {len(same_data)} scored on the base's data",
        on_click=lambda: st.session_state.update(runs=",".join(same_data)),
    )

rows = tables.judge(items, base, compared.load_against(items, base))
summary = tables.summarize(rows, base)
lines = [
    row_table.Row(run_id, cells) for run_id, cells in zip(rows["run_id"], summary.itertuples(index=False), strict=True)
]
columns = [row_table.Column(head, link="run?run=" if head == "Run" else "", wraps=True) for head in summary]
row_table.show(columns, lines, key="compared", caption="Compared runs")
if "disturbed" in rows and rows["disturbed"].eq(True).any():
    st.caption(DISTURBED)
buttons.show(
    "slimboard-comparison",
    [
        *buttons.offer_table(lambda: frames.frame_comparison(rows, base)),
        buttons.ExportFile("LaTeX", "tex", "text/x-tex", lambda: latex.write_table(summary)),
    ],
    "The table above: raw numbers as CSV or Parquet, formatted as LaTeX.",
)
judged = rows.dropna(subset=["delta"])
tab_names = ["Scores", "Settings", "Curves", "Layers"]
tabs = dict(zip(tab_names, st.tabs(tab_names, key="show", bind="query-params"), strict=True))
opened = next((name for name, tab in tabs.items() if tab.open), tab_names[0])
names = {row["item"]: stage_references.title(row["item"], row["label"]) for row in items.to_dict("records")}


def show_scores() -> None:
    """Differences from the base, with intervals."""
    if judged.empty:
        st.info("None of these stages has per-example results for the base's examples on this host.")
        return
    drawn = judged.assign(name=judged["item"].map(names), verdict=judged["verdict"].map(tables.VERDICTS))
    st.altair_chart(draw_deltas(drawn, base["score_name"], base["score_unit"], names[base["item"]]), width="stretch")
    better = "Higher" if base["higher_is_better"] else "Lower"
    st.caption(
        f"{better} is better. Paired tests on the same test examples. Bars are 95 % intervals of single differences; "
        "p-values are adjusted for multiple comparisons (Holm), so a difference can be not significant although its "
        "bar excludes zero. Neither includes the variance between seeds: compare several seeds for that."
    )


def show_settings() -> None:
    """Differences between the specs and between the environments."""
    differing = tables.list_differing_settings(items, load_catalogue())
    if differing.empty:
        st.info("These runs have identical specs.")
    else:
        show_differences(differing)
    environments = tables.list_differing_environments(items)
    if not environments.empty:
        show_differences(environments)


def show_differences(table: pd.DataFrame) -> None:
    """A few runs fit side by side; many need a scrollable table."""
    if len(table.columns) <= FEW:
        wrapped_table.show(table.reset_index())
    else:
        st.dataframe(table, column_config={"_index": st.column_config.Column(width=300)})


def show_curves() -> None:
    """The same curve of every run."""
    curves = compared.load_curve_names(tuple(items["run_id"].unique().tolist()))
    if curves.empty:
        st.info("None of these runs recorded a curve. Only training steps do.")
        return
    curves = curves.assign(name=curves["curve"].str.partition("/")[2])
    shared = curves.groupby("name")["run_id"].nunique().sort_values(ascending=False, kind="stable")
    choose, scale = st.columns([4, 1], vertical_alignment="bottom")
    name = choose.selectbox(
        "Curve",
        sorted(shared.index, key="loss".__ne__),  # the loss first
        key="curve",
        bind="query-params",
    )
    log = scale.toggle("Logarithmic", key="log", bind="query-params")
    drawn = curves[curves["name"] == name].head(len(SERIES))
    listed = {
        f"run {row.run_id}, step {row.curve.partition('/')[0]}": (row.run_id, row.curve) for row in drawn.itertuples()
    }
    points = pd.concat([load_curve(*place, 300)[["step", "value"]].assign(name=n) for n, place in listed.items()])
    st.altair_chart(draw_overlay(points, make_curve_title(name), list(listed), log=log), width="stretch")
    if len(drawn) < int((curves["name"] == name).sum()):
        st.caption(f"Only the first {len(SERIES)} are shown. Compare fewer runs to see the others.")


def show_layers() -> None:
    """One quantity of every layer, one column per stage."""
    layers = compared.load_layers(tuple(items["stage_id"]))
    found = {
        names[row["item"]]: layers[row["stage_id"]] for row in items.to_dict("records") if row["stage_id"] in layers
    }
    if not found:
        st.info("None of these stages has per-layer results. Pruning, quantization and decomposition record them.")
        return
    numbers = list(dict.fromkeys(q for rows in found.values() for q in list_quantities(rows)))
    quantity = st.segmented_control(
        "Quantity",
        numbers,
        default=numbers[0],
        required=True,
        key="quantity",
        bind="query-params",
        format_func=make_title,
    )
    st.altair_chart(compare_layers(found, quantity or numbers[0]), width="stretch")


with tabs[opened]:
    {"Scores": show_scores, "Settings": show_settings, "Curves": show_curves, "Layers": show_layers}[opened]()
offer_views()
