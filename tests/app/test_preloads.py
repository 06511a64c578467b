"""The modules that pages announce are those that their elements load."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app import preloads


@pytest.mark.parametrize("part", [preloads.TABLE, preloads.CHART])
def test_this_streamlit_has_the_part_and_all_that_it_imports(part):
    names = preloads.modules(part)
    assert names[0].startswith(f"{part}.") and len(names) > 5
    assert all((preloads.STATIC / preloads.SCRIPTS / name).is_file() for name in names)
    start = (preloads.STATIC / "index.html").read_text()
    assert not [name for name in names if name in start]  # those are loaded anyway


def test_a_part_that_is_not_there_names_nothing():
    assert preloads.modules("NoSuchElement") == ()


def test_only_pages_with_parts_bear_the_header():
    async def answer(request):
        return PlainTextResponse("page")

    routes = [Route(path, answer) for path in ("/", "/runs", "/submit")]
    client = TestClient(Starlette(routes=routes, middleware=[Middleware(preloads.Preloads)]))
    assert (
        f"<./static/js/{preloads.modules(preloads.TABLE)[0]}>; rel=modulepreload" in client.get("/runs").headers["link"]
    )
    assert preloads.CHART in client.get("/").headers["link"]
    assert "link" not in client.get("/submit").headers
