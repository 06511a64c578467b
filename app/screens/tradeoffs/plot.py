"""What is plotted: the stages of which task, and which two quantities of them, as an address says it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from app.charts.axes import AXES, Axis, axes_of_task, score_axis

TASK, ACROSS, UP = "points_of", "x", "y"


@dataclass(frozen=True)
class Plot:
    """A task, as `point_data.load_tasks` describes it, its quantities by column, and the two that are the axes."""

    task: Mapping[str, Any]
    task_name: str
    axes: dict[str, Axis]
    x: Axis
    y: Axis

    def titles(self) -> list[str]:
        """What the quantities are called."""
        return [axis.title for axis in self.axes.values()]

    def titled(self, title: str) -> Axis | None:
        """The quantity of this name."""
        return next((axis for axis in self.axes.values() if axis.title == title), None)


def task_names(tasks: pd.DataFrame) -> list[str]:
    """What the tasks are called; of several of one name, each with the start of its hash."""
    return list(tasks["task"].where(~tasks["task"].duplicated(keep=False), _with_hash(tasks)))


def _with_hash(tasks: pd.DataFrame) -> pd.Series:
    return tasks["task"] + " " + tasks["task_hash"].str[:6]


def plot_of(tasks: pd.DataFrame, asked: Mapping[str, Any]) -> Plot:
    """What is `asked` by the names in the address; else the first task, its size across and its score up.

    A task keeps its old names: an address may be from before another of the same name came, or from after.
    """
    name = asked.get(TASK)
    named = ((tasks["task"] == name) | (_with_hash(tasks) == name)).to_numpy()
    at = int(named.argmax())  # the first; 0 where none is
    task = tasks.iloc[at].to_dict()
    score = score_axis(task["score_name"], task["score_unit"], bool(task["higher_is_better"]))
    plot = Plot(task, task_names(tasks)[at], axes_of_task(score), AXES["size_bytes"], score)
    x, y = plot.titled(asked.get(ACROSS, "")), plot.titled(asked.get(UP, ""))
    return replace(plot, x=x or plot.x, y=y or plot.y)
