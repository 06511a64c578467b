"""A saved view's own address: leads on to the page as it was set."""

import streamlit as st

from app import identity
from app.saved_views import PAGES
from app.saved_views.data import read_view
from app.saved_views.menu import forget_settings
from app.saved_views.query import parameters

user, project = identity.user(), identity.project()
asked = st.query_params.get("view", "")
view = read_view(int(asked), project.id, user.id) if asked.isdecimal() else None
if view is None:
    st.title("View")
    st.info(
        f"There is no view {asked} here, or it is not shared with you." if asked.isdecimal() else "No view is named."
    )
    st.page_link("screens/tradeoffs.py", label="Trade-offs", icon=":material/scatter_plot:")
    st.stop()
forget_settings(view["page"])
st.switch_page(PAGES[view["page"]], query_params=parameters(view["query"]))
