"""The front end's server: Streamlit with main.py, and the addresses that are not Streamlit's."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route
from streamlit.starlette import App

from app.web import downloads, start_page

HERE = Path(__file__).parent


async def default_page(request: Request) -> RedirectResponse:
    """Streamlit knows the page that opens first by the bare address only."""
    return RedirectResponse(f"./?{request.url.query}" if request.url.query else "./")


screens = sorted(screen.stem for screen in (HERE / "screens").glob("*.py"))
routes = [
    Route(downloads.ROUTE, downloads.send),
    Route(downloads.BUNDLE_ROUTE, downloads.send_bundle),
    Route("/tradeoffs", default_page),
    *(Route(f"/{address}", start_page.send) for address in ["", *screens]),
]
app = App(HERE / "main.py", routes=routes)
