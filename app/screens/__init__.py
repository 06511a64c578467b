"""One folder a page; `page.py` is the script that Streamlit runs."""
