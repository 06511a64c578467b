"""A saved view's own address: leads on to the page as it was set."""

import streamlit as st

from app.queries.views import read_view
from app.web import identity, navigation
from app.web.query_string import PAGES

actor = identity.actor()
asked = st.query_params.get("view", "")
view = read_view(int(asked), actor.project.id, actor.user.id) if asked.isdecimal() else None
if view is None:
    st.title("View")
    st.info(
        f"There is no view {asked} here, or it is not shared with you." if asked.isdecimal() else "No view is named."
    )
    st.page_link("screens/tradeoffs/page.py", label="Trade-offs", icon=":material/scatter_plot:")
    st.stop()
navigation.go(f"{PAGES[view['page']]}?{view['query']}", replace=True)
