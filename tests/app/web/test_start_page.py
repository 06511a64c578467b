"""What pages start from: Streamlit's own HTML, which connects at once and fetches the modules that the page needs."""

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app import server
from app.web import start_page

PARTS = sorted({*start_page.ALWAYS, start_page.CHART, *(part for parts in start_page.PARTS.values() for part in parts)})
INDEX = (start_page.STATIC / "index.html").read_text()


@pytest.mark.parametrize("part", PARTS)
def test_this_streamlit_has_the_part_and_all_that_it_imports(part):
    names = start_page.list_modules(part)
    assert names[0].startswith(f"{part}.")
    assert all((start_page.STATIC / start_page.SCRIPTS / name).is_file() for name in names)
    assert not [name for name in names if name in INDEX]  # those are loaded anyway


def test_a_part_that_is_not_there_names_nothing():
    assert start_page.list_modules("NoSuchElement") == ()


def test_a_page_is_streamlits_with_more_in_its_head():
    routes = [Route(f"/{address}", start_page.send) for address in ("", "runs", "submit")]
    client = TestClient(Starlette(routes=routes))
    answer = client.get("/runs?status=done")
    head, _, body = answer.text.partition("</head>")
    assert body == INDEX.partition("</head>")[2].replace("</body>", f"{start_page.STYLE}</body>")
    assert head.startswith(INDEX.partition("</head>")[0]) and "st-key-cards" in body
    assert answer.headers["cache-control"] == "no-cache"
    assert start_page.list_modules("Pagination")[0] in head and "DataFrame" not in head
    assert "ArrowVegaLiteChart" in client.get("/").text
    assert "ArrowVegaLiteChart" not in client.get("/submit").text


def test_the_charts_large_module_is_loaded_once_the_front_end_is_there():
    [chart, *imported] = start_page.list_modules("ArrowVegaLiteChart")
    before, _, after = start_page.render("").partition('addEventListener("load"')
    assert f'["./static/js/{chart}", ' in after and "import(addresses[0])" in after and chart not in before
    assert all(name in before or name in after for name in imported)  # none is asked for by another module only
    assert any(name.startswith("embed.") and name not in before for name in imported)
    assert "import(" not in start_page.render("submit")


def test_this_streamlit_reads_where_its_server_is_from_the_page():
    scripts = (start_page.STATIC / start_page.SCRIPTS).glob("index.*.js")
    assert any(
        all(word in text for word in ("window.__streamlit", "BACKEND_BASE_URL", "HOST_CONFIG", "enableBypass"))
        for text in (script.read_text() for script in scripts)
    )


def test_every_page_has_a_route_to_its_start_page():
    paths = {route.path for route in server.routes if route.endpoint is start_page.send}
    assert {"/", "/submit", "/queue", "/runs", "/run", "/compare", "/system", "/view"} <= paths
