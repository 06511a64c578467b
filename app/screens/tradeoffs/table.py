"""The stages below the chart: the clicked ones, otherwise the Pareto frontier within the limits."""

import pandas as pd
import streamlit as st

from app.components import row_table
from app.screens.tradeoffs.plot import Plot
from app.text import formats
from core.quantities import Shown, shown_in

LISTED = tuple(quantity.name for quantity in shown_in(Shown.LISTED))


def show(shown: pd.DataFrame, picked: set[int], plot: Plot, *, bounded: bool) -> None:
    """Draw the table of `shown` points, as `annotate` returns them; `picked` are the clicked stages.

    It has the two axes and the main quantities; exports have all of them.
    """
    within = shown["on_frontier"] & shown["feasible"]
    listed = shown[shown["stage_id"].isin(picked) if picked else within].sort_values(plot.x.column)
    title = "Pareto frontier within the limits" if bounded else "Pareto frontier"
    st.subheader("Selected stages" if picked else title, anchor=False)
    seeds = ["Seeds"] if "n_seeds" in listed and (listed["n_seeds"] > 1).any() else []
    measured = {
        column: plot.axes[column]
        for column in dict.fromkeys([*LISTED, plot.x.column, plot.y.column])
        if column in listed and listed[column].notna().any()
    }
    rows = [
        row_table.Row(
            int(stage["run_id"]),
            [
                str(stage["run_id"]),
                stage["label"],
                stage["model"],
                *(str(stage["n_seeds"]) for _ in seeds),
                *(
                    axis.read(stage[column]) if pd.notna(stage[column]) else formats.NOTHING
                    for column, axis in measured.items()
                ),
                stage["kernel"] if pd.notna(stage["kernel"]) else formats.NOTHING,
            ],
        )
        for stage in listed.to_dict("records")
    ]
    heads = ["Stage", "Model", *seeds, *(axis.head for axis in measured.values()), "Kernel"]
    columns = [row_table.Column("Run", link="run?run="), *(row_table.Column(head, wraps=True) for head in heads)]
    row_table.show(columns, rows, key="stages", caption="Stages")
