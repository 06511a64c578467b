"""The front end's server: Streamlit with main.py, and the addresses that files are downloaded from."""

from pathlib import Path

from starlette.routing import Route
from streamlit.starlette import App

from app import downloads

app = App(Path(__file__).with_name("main.py"), routes=[Route(downloads.ROUTE, downloads.send)])
