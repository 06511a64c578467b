import re

import pytest

from app.text import markdown


def inner(text: str) -> str:
    return re.fullmatch(r'<div class="written" dir="auto">(.*)</div>', markdown.html(text), re.DOTALL)[1].strip()


def test_what_markdown_is_for():
    assert inner("**b** and `c <b>`") == "<p><strong>b</strong> and <code>c &lt;b&gt;</code></p>"
    assert inner("- a\n- b") == "<ul>\n<li>a</li>\n<li>b</li>\n</ul>"
    assert "<td>2</td>" in inner("| a | b |\n|---|---|\n| 1 | 2 |")
    assert inner("first\nsecond") == "<p>first<br />\nsecond</p>"


def test_headings_stand_below_those_of_the_page():
    assert inner("# a") == "<h4>a</h4>" and inner("##### b") == "<h6>b</h6>"


def test_html_is_shown_as_it_was_typed():
    text = '<script>alert(1)</script><img src=x onerror=alert(1)> <a href="javascript:alert(1)">x</a>'
    assert not re.search(r"<(script|img|a)\b", inner(text)) and "&lt;script&gt;" in inner(text)
    assert not re.search(r"<(script|iframe|div)\b", inner("<div onclick=x>\n<iframe src=x>\n</div>"))


def test_no_picture_is_loaded():
    assert "<img" not in inner("![i](http://example.org/i.png) ![j][k]\n\n[k]: http://example.org/j.png")


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", " JavaScript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//example.org"],
)
def test_a_link_that_leads_elsewhere_than_it_may_is_text(address):
    assert "<a" not in inner(f"[x](<{address}>)") and "<a" not in inner(f"<{address}>")


@pytest.mark.parametrize("address", ["https://example.org/a?b=c", "run?run=3", "/compare?runs=1,2", "mailto:a@b.c"])
def test_a_link_that_may_lead_there_tells_nothing_of_this_board(address):
    assert re.fullmatch(r'<p><a href="[^"]+" rel="noopener noreferrer nofollow">x</a></p>', inner(f"[x]({address})"))


def test_an_entity_or_an_escape_makes_no_scheme():
    for address in ("java&#115;cript:alert(1)", "&#106;avascript:alert(1)", "java%0ascript:alert(1)", "\\javascript:x"):
        assert not re.search(r'href="\s*javascript', inner(f"[x]({address})"), re.IGNORECASE)


def test_formulas_and_colours_are_text():
    assert inner("$\\rule{9999em}{9999em}$ :red[x] :material/home:") == (
        "<p>$\\rule{9999em}{9999em}$ :red[x] :material/home:</p>"
    )
