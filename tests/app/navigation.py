"""Opening a page of the app under test by its address, before anything was drawn."""

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash


def go_to(at: AppTest, address: str) -> None:
    """Make the next run show the page at `address` ("compare"): `AppTest.switch_page` needs a run before it."""
    at._page_hash = calc_hash(address)
