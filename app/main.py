"""The front end's entry: who it is, and which pages there are."""

from pathlib import Path

import streamlit as st

from app import identity

HERE = Path(__file__).parent

st.set_page_config(page_title="Slimboard", page_icon=HERE / "icon.png", layout="wide")
st.logo(HERE / "logo.svg", size="large")
identity.user()

pages = {
    "Experiments": [
        st.Page("screens/submit.py", title="Submit", icon=":material/add_circle:"),
        st.Page("screens/queue.py", title="Queue", icon=":material/pending_actions:"),
        st.Page("screens/runs.py", title="Runs", icon=":material/table_rows:"),
        st.Page("screens/run.py", title="Run", visibility="hidden"),
    ],
    "Results": [
        st.Page("screens/tradeoffs.py", title="Trade-offs", icon=":material/scatter_plot:", default=True),
        st.Page("screens/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("screens/provenance.py", title="Provenance", icon=":material/account_tree:"),
        st.Page("screens/reports.py", title="Reports", icon=":material/article:"),
        st.Page("screens/view.py", title="View", visibility="hidden"),
    ],
    "Reference": [
        st.Page("screens/architectures.py", title="Architectures", icon=":material/trending_up:"),
        st.Page("screens/techniques.py", title="Techniques", icon=":material/menu_book:"),
        st.Page("screens/system.py", title="System", icon=":material/dns:"),
    ],
}
page = st.navigation(pages)
st.set_page_config(page_title=f"{page.title} · Slimboard")
identity.choose_project()
page.run()
