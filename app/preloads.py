"""Has the browser fetch the parts of Streamlit that a page will need while it still starts.

Streamlit's front end asks for the module of a table or a chart only once such an element has arrived.
"""

import re
from functools import cache
from pathlib import Path

import streamlit
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(streamlit.__file__).parent / "static"
SCRIPTS = Path("static") / "js"
TABLE, CHART = "DataFrame", "ArrowVegaLiteChart"
PARTS = {"/": (CHART, TABLE), "/runs": (TABLE,)}
_IMPORTED = re.compile(r'(?:from|import)"\./([\w.~-]+\.js)"')


class Preloads:
    """Adds to the answers at the addresses in `PARTS` a Link header that names the modules."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        parts = PARTS.get(path) if scope["type"] == "http" else None

        async def send_with_link(message: Message) -> None:
            if parts and message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("link", link(parts))
            await send(message)

        await self.app(scope, receive, send_with_link)


@cache
def link(parts: tuple[str, ...]) -> str:
    """The header's value: the modules of these parts and all that they import."""
    found = dict.fromkeys(name for part in parts for name in modules(part))
    return ", ".join(f"<./{(SCRIPTS / name).as_posix()}>; rel=modulepreload" for name in found)


@cache
def modules(part: str) -> tuple[str, ...]:
    """File names of a part's module and of what it imports, which the start page does not load anyway; none where
    this version of Streamlit has no such part."""
    started = set(re.findall(r"[\w.~-]+\.js", (STATIC / "index.html").read_text()))
    found: dict[str, None] = {}
    waiting = [path.name for path in (STATIC / SCRIPTS).glob(f"{part}.*.js")]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in started:
            found[name] = None
            waiting += _IMPORTED.findall((STATIC / SCRIPTS / name).read_text())
    return tuple(found)
