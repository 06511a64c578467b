"""What is plotted: a task's stages and two of their quantities, as the URL says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from app.charts.axes import AXES, Axis, list_axes, score_axis

TASK, X, Y = "points_of", "x", "y"


@dataclass(frozen=True)
class Plot:
    """A task, as `tradeoffs.load_tasks` describes it, its quantities by column, and the two that are the axes."""

    task: Mapping[str, Any]
    task_name: str
    axes: dict[str, Axis]
    x: Axis
    y: Axis

    def titles(self) -> list[str]:
        """Titles of the quantities."""
        return [axis.title for axis in self.axes.values()]

    def titled(self, title: str) -> Axis | None:
        """The quantity with this title."""
        return next((axis for axis in self.axes.values() if axis.title == title), None)


def task_names(tasks: pd.DataFrame) -> list[str]:
    """Names of the tasks; those that share a name get the start of their hash."""
    return list(tasks["task"].where(~tasks["task"].duplicated(keep=False), _with_hash(tasks)))


def _with_hash(tasks: pd.DataFrame) -> pd.Series:
    return tasks["task"] + " " + tasks["task_hash"].str[:6]


def plot_of(tasks: pd.DataFrame, asked: Mapping[str, Any]) -> Plot:
    """What is `asked` for by URL parameter; otherwise the first task, with size on the X axis and score on the Y axis.

    Both forms of a task's name are read: a link may be older or newer than another task of the same name.
    """
    name = asked.get(TASK)
    named = ((tasks["task"] == name) | (_with_hash(tasks) == name)).to_numpy()
    at = int(named.argmax())  # the first match, or 0
    task = tasks.iloc[at].to_dict()
    score = score_axis(task["score_name"], task["score_unit"], bool(task["higher_is_better"]))
    plot = Plot(task, task_names(tasks)[at], list_axes(score), AXES["size_bytes"], score)
    x, y = plot.titled(asked.get(X, "")), plot.titled(asked.get(Y, ""))
    return replace(plot, x=x or plot.x, y=y or plot.y)
