"""The front-end server: Streamlit with main.py, plus routes of our own."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route
from streamlit.starlette import App

from app.web import downloads, start_page

HERE = Path(__file__).parent


async def default_page(request: Request) -> RedirectResponse:
    """Redirect to the bare URL, the only one at which Streamlit serves the default page."""
    return RedirectResponse(f"./?{request.url.query}" if request.url.query else "./")


screens = sorted(page.parent.name for page in (HERE / "screens").glob("*/page.py"))
routes = [
    Route(downloads.ROUTE, downloads.send),
    Route(downloads.BUNDLE_ROUTE, downloads.send_bundle),
    Route("/tradeoffs", default_page),
    *(Route(f"/{address}", start_page.send) for address in ["", *screens]),
]
app = App(HERE / "main.py", routes=routes)
