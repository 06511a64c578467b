"""Embedded views of a report: what a page shows with some settings, as charts and tables."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from app.charts import provenance as tree_chart
from app.charts.deltas import draw_deltas
from app.charts.provenance_tree import grow
from app.exports.document import Chart
from app.queries import compare as compared
from app.queries.provenance import load_family
from app.queries.runs import count_runs, load_runs
from app.screens.compare import latency, tables
from app.screens.reports import tradeoffs
from app.screens.reports.parser import Embedded
from app.screens.runs import table as runs_table
from app.text import formats, stage_references
from app.text.stages import DISTURBED
from core.store.listing import ORDERS, Order, RunFilter
from core.store.models import RunStatus

MOST_ROWS = 50


class NotShownError(ValueError):
    """A view cannot be shown; the message says why."""


@dataclass
class RenderedPart:
    """What a view shows."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    words: str = ""


def draw(part: Embedded, project_id: int, ground: str = "light") -> RenderedPart:
    """What the page shows; raises NotShownError if its settings match nothing."""
    settings = {name: value for name, value in part.settings.items() if value}
    if part.page == "compare":
        return _compare(settings, project_id)
    if part.page == "runs":
        return _runs(settings, project_id)
    if part.page == "provenance":
        return _provenance(settings, project_id, ground)
    return _tradeoffs(settings, project_id)


def _text(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name, "")
    return value if isinstance(value, str) else value[0]


def _list(settings: dict[str, Any], name: str) -> list[str]:
    value = settings.get(name, [])
    return [value] if isinstance(value, str) else list(value)


def _compare(settings: dict[str, Any], project_id: int) -> RenderedPart:
    text = _text(settings, "runs")
    try:
        items = compared.load_items(project_id, text)
    except stage_references.AddressError as error:
        raise NotShownError(str(error)) from error
    if len(items) < 2:
        raise NotShownError("Fewer than two of these runs exist here with a measured stage.")
    latencies = latency.add_conditions(
        compared.load_latencies(tuple(zip(items["run_id"], items["stage_id"], strict=True)))
    )
    offered, asked = latency.list_conditions(latencies), _text(settings, "conditions")
    kind = asked if asked in offered else next(iter(offered), None)
    items = latency.join_latencies(items, latencies, kind)
    base = items.iloc[0].to_dict()
    rows = tables.judge(items, base, compared.load_against(items, base))
    drawn = RenderedPart([tables.summarize(rows, base)], words=f"Latency conditions: {kind}." if kind else "")
    if kind and rows["disturbed"].eq(True).any():
        drawn.words += f" {DISTURBED}"
    judged = rows.dropna(subset=["delta"])
    if not judged.empty:
        names = {row["item"]: stage_references.title(row["item"], row["label"]) for row in items.to_dict("records")}
        judged = judged.assign(name=judged["item"].map(names), verdict=judged["verdict"].map(tables.VERDICTS))
        drawn.charts.append(draw_deltas(judged, base["score_name"], base["score_unit"], names[base["item"]]))
    return drawn


def _runs(settings: dict[str, Any], project_id: int) -> RenderedPart:
    known = {status.value for status in RunStatus}
    chosen = RunFilter(
        project_id,
        statuses=tuple(RunStatus(name) for name in _list(settings, "status") if name in known),
        owner=_text(settings, "owner"),
        model=_text(settings, "model"),
        task=_text(settings, "task"),
        technique=_text(settings, "technique"),
        tag=_text(settings, "tag"),
        text=_text(settings, "text"),
    )
    order: Order = next((order for order in ORDERS if order == _text(settings, "sort")), "newest")
    runs = load_runs(chosen, order, 1, MOST_ROWS)
    if not runs:
        raise NotShownError("No runs match.")
    heads = [column.name for column in runs_table.COLUMNS]
    n_found = count_runs(chosen)
    words = f"The first {len(runs)} of {formats.plural(n_found, 'run')}." if n_found > len(runs) else ""
    table = pd.DataFrame([row.cells for row in runs_table.make_table(runs)], columns=heads)
    return RenderedPart([table.drop(columns=["Owner", "Duration"])], words=words)


def _provenance(settings: dict[str, Any], project_id: int, ground: str) -> RenderedPart:
    named = tuple(int(word) for word in _text(settings, "of").replace(",", " ").split() if word.isdecimal())[:MOST_ROWS]
    family = load_family(project_id, named, MOST_ROWS, relatives=True)
    if not named or family.stages.empty:
        raise NotShownError("A provenance tree in a report must name existing runs, as in provenance?of=12.")
    return RenderedPart(charts=[tree_chart.draw_provenance(grow(family.stages, family.sources), named, ground)])


def _tradeoffs(settings: dict[str, Any], project_id: int) -> RenderedPart:
    found = tradeoffs.draw_chart(settings, project_id)
    if found is None:
        raise NotShownError("No matching stage has both quantities.")
    return RenderedPart(charts=[found])
