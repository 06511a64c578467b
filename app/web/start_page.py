"""The start page's HTML: Streamlit's own, with the server's URL, links.js, preloaded modules and our style.

By default Streamlit's front end first probes two URLs for the server, and requests the module of a table or a chart
only when such an element arrives. Here small modules come with the page. The large chart module is loaded while the
server computes the chart; loaded earlier, it would delay the front end itself.
"""

import json
import re
from functools import cache
from pathlib import Path

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse

STATIC = Path(streamlit.__file__).parent / "static"
SCRIPTS = Path("static") / "js"
ALWAYS = ("Button", "ButtonGroup")
PARTS = {
    "": ("BidiComponent", "MenuButton"),
    "runs": ("BidiComponent", "Pagination", "TextInput"),
    "compare": ("BidiComponent", "Selectbox"),
    "run": ("Table",),
}  # modules of each page's elements
CHART, WITH_CHARTS = "ArrowVegaLiteChart", ("", "compare", "run", "architectures")
CONNECT = """<script>
  window.__streamlit = {
    BACKEND_BASE_URL: new URL("./", location.href).href,
    HOST_CONFIG: { allowedOrigins: [location.origin], useExternalAuthToken: false },
  };
</script>"""  # only this server's own pages may send messages
LINKS = f"<script>{Path(__file__).with_name('links.js').read_text()}</script>"
STYLE = f"<style>{Path(__file__).with_name('style.css').read_text()}</style>"  # at the end, to override Streamlit's
LATER = """<script>
  addEventListener("load", () => {
    const addresses = %s;
    for (const href of addresses)
      document.head.append(Object.assign(document.createElement("link"), { rel: "modulepreload", href }));
    import(addresses[0]);
  });
</script>"""  # all at once: a module requests its imports only after it has arrived
_IMPORTED = re.compile(r'(?:from|import)"\./([\w.~-]+\.js)"')


def send(request: Request) -> HTMLResponse:
    """The start page at this URL."""
    return HTMLResponse(render(request.url.path.rpartition("/")[2]), headers={"Cache-Control": "no-cache"})


@cache
def render(page: str) -> str:
    """Streamlit's index.html with our additions at the end of its head, and our style at the end of its body."""
    small = dict.fromkeys(name for part in (*ALWAYS, *PARTS.get(page, ())) for name in list_modules(part))
    large = [name for name in list_modules(CHART) if name not in small] if page in WITH_CHARTS else []
    more = [
        *(f'<link rel="modulepreload" crossorigin href="{_address(name)}">' for name in small),
        *([LATER % json.dumps([_address(name) for name in large])] if large else []),
    ]
    index = (STATIC / "index.html").read_text()
    index = index.replace("</head>", "\n".join([CONNECT, LINKS, *more, "</head>"]), 1)
    return index.replace("</body>", f"{STYLE}</body>", 1)


def _address(module: str) -> str:
    return f"./{(SCRIPTS / module).as_posix()}"


@cache
def list_modules(part: str) -> tuple[str, ...]:
    """File names of a part's module and its imports that the start page does not load anyway; none if this version of
    Streamlit has no such part."""
    started = set(re.findall(r"[\w.~-]+\.js", (STATIC / "index.html").read_text()))
    found: dict[str, None] = {}
    waiting = [path.name for path in (STATIC / SCRIPTS).glob(f"{part}.*.js")]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in started:
            found[name] = None
            waiting += _IMPORTED.findall((STATIC / SCRIPTS / name).read_text())
    return tuple(found)
