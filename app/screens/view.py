"""A saved view's own address: leads on to the page as it was set."""

import streamlit as st

from app import identity, redirect
from app.saved_views import PAGES
from app.saved_views.data import read_view

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
redirect.go(f"{PAGES[view['page']]}?{view['query']}", replace=True)
