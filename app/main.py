"""The entry point of the front end: sign-in and navigation."""

from pathlib import Path

import streamlit as st

from app.queries import cache
from app.web import identity
from app.web.cache import streamlit_cache

HERE = Path(__file__).parent

cache.use(streamlit_cache)

st.set_page_config(page_title="Slimboard", page_icon=HERE / "icon.png", layout="wide")
st.logo(HERE / "logo.svg", size="large")
identity.require_user()

pages = {
    "Experiments": [
        st.Page("screens/submit/page.py", title="Submit", url_path="submit", icon=":material/add_circle:"),
        st.Page("screens/queue/page.py", title="Queue", url_path="queue", icon=":material/pending_actions:"),
        st.Page("screens/runs/page.py", title="Runs", url_path="runs", icon=":material/table_rows:"),
        st.Page("screens/run/page.py", title="Run", url_path="run", visibility="hidden"),
    ],
    "Results": [
        st.Page("screens/tradeoffs/page.py", title="Trade-offs", icon=":material/scatter_plot:", default=True),
        st.Page("screens/compare/page.py", title="Compare", url_path="compare", icon=":material/compare_arrows:"),
        st.Page(
            "screens/provenance/page.py", title="Provenance", url_path="provenance", icon=":material/account_tree:"
        ),
        st.Page("screens/reports/page.py", title="Reports", url_path="reports", icon=":material/article:"),
        st.Page("screens/view/page.py", title="View", url_path="view", visibility="hidden"),
    ],
    "Reference": [
        st.Page(
            "screens/architectures/page.py",
            title="Architectures",
            url_path="architectures",
            icon=":material/trending_up:",
        ),
        st.Page("screens/techniques/page.py", title="Techniques", url_path="techniques", icon=":material/menu_book:"),
        st.Page("screens/system/page.py", title="System", url_path="system", icon=":material/dns:"),
    ],
}
page = st.navigation(pages)
st.set_page_config(page_title=f"{page.title} · Slimboard")
identity.choose_project()
page.run()
