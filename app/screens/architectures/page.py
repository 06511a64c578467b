"""How the cost of each architecture grows with the length of its input."""

import pandas as pd
import streamlit as st

from app.charts.architectures import AXES, growth, points
from app.components import wrapped_table
from app.queries.catalogue import load_survey
from app.screens.architectures import table
from app.text import formats
from app.web import identity
from core.complexity.report import shipped

identity.actor()
st.title("Architectures")
st.caption(
    "What each architecture costs at growing lengths, and the power of the length that fits best at the longest four. "
    "docs/architectures.md beside Slimboard's source says how this is measured."
)

own = None
try:
    own = load_survey()
except ValueError:
    st.warning("The survey of this installation cannot be read. Take it again: `slimboard architectures --save`.")
origins = {"Shipped with Slimboard": shipped()}
if own is not None:
    origins = {"This installation": own, **origins}
    origin = st.segmented_control("Measured by", list(origins), default="This installation", required=True)
else:
    origin = "Shipped with Slimboard"
survey = origins[origin]
st.caption(formats.plain(table.conditions(survey.conditions)))

quantity = st.segmented_control(
    "Quantity", list(AXES), default="train_ms", required=True, format_func=lambda name: AXES[name].title, key="quantity"
)
names = [architecture.name for architecture in survey.architectures]
hidden = st.pills("Hide", names, selection_mode="multi", key="hidden")
drawn = points(survey, quantity)
drawn = drawn[~drawn["name"].isin(hidden)]
if drawn.empty:
    st.info("No architecture is left that has this quantity.")
else:
    st.altair_chart(growth(drawn, quantity, names), width="stretch")
    st.caption(
        "Both axes are logarithmic. The dotted grey lines have the slopes of T and of T². Click an architecture in the "
        "legend to pick it out."
    )

st.subheader("Growth with the length T")
st.caption(
    f"The value at {survey.lengths[-1]:,} tokens; in brackets the power of the length, with its 95 % interval over the "
    "longest four lengths. A forward and a backward pass are an update of a training without its optimizer; training "
    "memory is what they hold beside the model. Whether a training is parallel is told from how many operations it "
    "launches."
)
links = {a.name: f"[{formats.plain(a.name)}]({a.paper})" for a in survey.architectures}
rows = [{**row, "Architecture": links[row["Architecture"]]} for row in table.table(survey)]
wrapped_table.show(pd.DataFrame(rows), markdown={"Architecture"})
with st.expander("What each architecture does, and its settings"):
    for measured in survey.architectures:
        settings = ", ".join(f"{name}: {value}" for name, value in measured.settings.items()) or "no settings"
        st.markdown(
            f"**{formats.plain(measured.name)}** in {measured.model}: {formats.plain(measured.summary)} "
            f"({formats.plain(settings)})"
        )
for name, reason in survey.refused.items():
    st.caption(f"{formats.plain(name)} is not measured: {formats.plain(reason)}")
if own is None:
    st.info("Not measured on this installation yet: run `slimboard architectures --save`.", icon=":material/speed:")
