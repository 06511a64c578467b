"""The front end's entry: who it is, and which pages there are."""

from pathlib import Path

import streamlit as st

from app import identity

HERE = Path(__file__).parent

st.set_page_config(page_title="Slimboard", page_icon=HERE / "icon.png", layout="wide")
st.logo(HERE / "logo.svg", size="large")
st.html(HERE / "style.css")
identity.choose_project()

pages = {
    "Experiments": [
        st.Page("pages/submit.py", title="Submit", icon=":material/add_circle:"),
        st.Page("pages/queue.py", title="Queue", icon=":material/pending_actions:"),
        st.Page("pages/runs.py", title="Runs", icon=":material/table_rows:"),
        st.Page("pages/run.py", title="Run", visibility="hidden"),
    ],
    "Results": [
        st.Page("pages/tradeoffs.py", title="Trade-offs", icon=":material/scatter_plot:", default=True),
    ],
    "Reference": [
        st.Page("pages/techniques.py", title="Techniques", icon=":material/menu_book:"),
        st.Page("pages/system.py", title="System", icon=":material/dns:"),
    ],
}
page = st.navigation(pages)
page.run()
