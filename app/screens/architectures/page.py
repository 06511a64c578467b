"""How the cost of each architecture scales with sequence length."""

import pandas as pd
import streamlit as st

from app.charts.architectures import AXES, draw_growth, list_points
from app.components import wrapped_table
from app.queries.catalogue import load_survey
from app.screens.architectures import table
from app.text import formats
from app.web import identity
from core.complexity.report import load_shipped

identity.require_actor()
st.title("Architectures")
st.caption(
    "Cost of each architecture at increasing sequence lengths, with the exponent of a power law fitted to the four "
    "longest. See docs/architectures.md for the method."
)

own = None
try:
    own = load_survey()
except ValueError:
    st.warning("This installation's survey is unreadable. Measure it again: `slimboard architectures --save`.")
origins = {"Shipped with Slimboard": load_shipped()}
if own is not None:
    origins = {"This installation": own, **origins}
    origin = st.segmented_control("Measured by", list(origins), default="This installation", required=True)
else:
    origin = "Shipped with Slimboard"
survey = origins[origin]
st.caption(formats.plain(table.describe_conditions(survey.conditions)))

quantity = st.segmented_control(
    "Quantity", list(AXES), default="train_ms", required=True, format_func=lambda name: AXES[name].title, key="quantity"
)
names = [architecture.name for architecture in survey.architectures]
hidden = st.pills("Hide", names, selection_mode="multi", key="hidden")
drawn = list_points(survey, quantity)
drawn = drawn[~drawn["name"].isin(hidden)]
if drawn.empty:
    st.info("None of the visible architectures has this quantity.")
else:
    st.altair_chart(draw_growth(drawn, quantity, names), width="stretch")
    st.caption(
        "Both axes are logarithmic. The dotted grey lines have the slopes of T and T². Click an architecture in the "
        "legend to highlight it."
    )

st.subheader("Scaling with sequence length T")
st.caption(
    f"Values at {survey.lengths[-1]:,} tokens; in brackets the exponent of the length, fitted to the four longest "
    "lengths, with its 95 % interval. Forward and backward are a training update without the optimizer; training "
    "memory excludes the model itself. Whether training is parallel is derived from the number of launched operations."
)
links = {a.name: f"[{formats.plain(a.name)}]({a.paper})" for a in survey.architectures}
rows = [{**row, "Architecture": links[row["Architecture"]]} for row in table.make_table(survey)]
wrapped_table.show(pd.DataFrame(rows), markdown={"Architecture"})
with st.expander("What each architecture does, and its settings"):
    for measured in survey.architectures:
        settings = ", ".join(f"{name}: {value}" for name, value in measured.settings.items()) or "no settings"
        st.markdown(
            f"**{formats.plain(measured.name)}** in {measured.model}: {formats.plain(measured.summary)} "
            f"({formats.plain(settings)})"
        )
for name, reason in survey.refused.items():
    st.caption(f"{formats.plain(name)} could not be measured: {formats.plain(reason)}")
if own is None:
    st.info(
        "This installation has no measurements of its own yet. Run `slimboard architectures --save`.",
        icon=":material/speed:",
    )
