"""The trade-off chart for the settings of a URL, as the Trade-offs page draws it."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from app.charts import tradeoffs as charts
from app.charts.annotated import annotate
from app.charts.axes import Axis
from app.queries import tradeoffs
from app.screens.tradeoffs import limits
from app.screens.tradeoffs.plot import plot_of
from app.text.conditions import condition_name
from core.store.tradeoffs.filters import PointFilter
from core.store.tradeoffs.thinning import Logs


def draw_chart(settings: Mapping[str, Any], project_id: int) -> alt.LayerChart | None:
    """The chart, None if no stage has both quantities; unset parameters have the page's defaults."""
    tasks = tradeoffs.load_tasks(project_id)
    if tasks.empty:
        return None
    plot = plot_of(tasks, settings)
    task, axes, x, y = plot.task, plot.axes, plot.x, plot.y
    timed = {condition_name(c): c for c, _ in tradeoffs.load_conditions(project_id, task["task_hash"])}
    chosen = PointFilter(
        project_id,
        task["task_hash"],
        models=_several(settings, "models"),
        families=_several(settings, "families"),
        text=settings.get("stage", ""),
        conditions=timed.get(settings.get("timed", ""), next(iter(timed.values()), None)),
    )
    logs = Logs(_log(settings, f"log.{x.column}", x), _log(settings, f"log.up.{y.column}", y))
    points = tradeoffs.load_points(chosen, x.column, y.column, logs, as_one=settings.get("seeds") != "each")
    if points.empty:
        return None
    asked = [field for field in limits.list_fields(task) if field.name in settings]
    bounds = {field.column: field.bound(float(settings[field.name])) for field in asked}
    return charts.draw_scatter(
        annotate(points, x, y, bounds, axes),
        x,
        y,
        bounds,
        size=plot.titled(settings.get("size", "")),
        axes=axes,
        log_x=logs.x,
        log_y=logs.y,
    )


def _several(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = settings.get(name, ())
    return (value,) if isinstance(value, str) else tuple(value)


def _log(settings: Mapping[str, Any], name: str, axis: Axis) -> bool:
    return str(settings.get(name, axis.log)).lower() == "true"
