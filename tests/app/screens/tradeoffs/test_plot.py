"""What an address says to plot, and what is plotted where it says nothing, or what is not there."""

import pandas as pd

from app.screens.tradeoffs.plot import plot_of, task_names

TASKS = pd.DataFrame(
    [
        ("digits", "a" * 64, "accuracy", "%", True),
        ("texts", "b" * 64, "bits per character", "bits", False),
        ("texts", "c" * 64, "bits per character", "bits", False),
    ],
    columns=["task", "task_hash", "score_name", "score_unit", "higher_is_better"],
)


def columns(asked):
    plot = plot_of(TASKS, asked)
    return plot.task["task_hash"][0], plot.x.column, plot.y.column


def test_tasks_of_one_name_are_told_apart():
    assert task_names(TASKS) == ["digits", "texts bbbbbb", "texts cccccc"]


def test_without_settings_it_is_the_first_tasks_size_and_score():
    assert columns({}) == ("a", "size_bytes", "score")


def test_the_address_names_task_and_quantities():
    asked = {"points_of": "texts cccccc", "x": "Bits per character", "y": "Speed-up"}
    assert columns(asked) == ("c", "score", "speed_up")


def test_a_task_keeps_the_name_that_it_had_with_fewer_or_more_beside_it():
    assert columns({"points_of": "texts"})[0] == "b"
    assert columns({"points_of": "digits aaaaaa"})[0] == "a"
    assert plot_of(TASKS, {"points_of": "texts"}).task_name == "texts bbbbbb"


def test_names_that_are_not_there_count_as_none():
    assert columns({"points_of": "images", "x": "Accuracy!", "y": "Beauty"}) == ("a", "size_bytes", "score")


def test_a_score_of_another_task_is_none_here_and_again_one_there():
    asked = {"x": "Accuracy"}
    assert columns({**asked, "points_of": "texts bbbbbb"}) == ("b", "size_bytes", "score")
    assert columns(asked) == ("a", "score", "score")


def test_the_score_has_its_tasks_name_unit_and_direction():
    axis = plot_of(TASKS, {"points_of": "texts bbbbbb"}).y
    assert (axis.title, axis.better, axis.units[0][1]) == ("Bits per character", "less", "bits")
