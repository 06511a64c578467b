"""The URL of a saved view: redirects to its page with the saved settings."""

import streamlit as st

from app.queries.views import read_view
from app.web import identity, navigation
from app.web.query_string import PAGES

actor = identity.require_actor()
asked = st.query_params.get("view", "")
view = read_view(int(asked), actor.project.id, actor.user.id) if asked.isdecimal() else None
if view is None:
    st.title("View")
    st.info(
        f"View {asked} does not exist here, or is not shared with you."
        if asked.isdecimal()
        else "The URL names no view."
    )
    st.page_link("screens/tradeoffs/page.py", label="Trade-offs", icon=":material/scatter_plot:")
    st.stop()
navigation.go(f"{PAGES[view['page']]}?{view['query']}", replace=True)
