"""The front end's server: Streamlit with main.py, and the addresses that files are downloaded from."""

from pathlib import Path

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route
from streamlit.starlette import App

from app import downloads
from app.preloads import Preloads


async def start_page(request: Request) -> RedirectResponse:
    """Streamlit knows the page that opens first by the bare address only."""
    return RedirectResponse(f"./?{request.url.query}" if request.url.query else "./")


routes = [
    Route(downloads.ROUTE, downloads.send),
    Route(downloads.BUNDLE_ROUTE, downloads.send_bundle),
    Route("/tradeoffs", start_page),
]
app = App(Path(__file__).with_name("main.py"), routes=routes, middleware=[Middleware(Preloads)])
