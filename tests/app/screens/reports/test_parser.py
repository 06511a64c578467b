import pytest

from app.screens.reports.parser import Embedded, parse, write_line


def test_views_stand_between_the_text():
    text = "# Why\n\nBecause.\n\n{{compare?runs=1%2C2&show=Scores}}\n{{runs?status=done&status=failed}}\n\nEnd."
    first, compared, runs, last = parse(text)
    assert (first.strip(), last.strip()) == ("# Why\n\nBecause.", "End.")
    assert compared == Embedded("compare", "runs=1%2C2&show=Scores")
    assert compared.settings == {"runs": "1,2", "show": "Scores"}
    assert runs.settings == {"status": ["done", "failed"]}


@pytest.mark.parametrize(
    ("line", "page"),
    [
        ("{{https://board.example/compare?runs=1,2}}", "compare"),
        ("{{ http://127.0.0.1:8501/?x=Size }}", "tradeoffs"),
        ("  {{/provenance?of=3}}", "provenance"),
    ],
)
def test_an_address_from_the_browser_will_do(line, page):
    [part] = parse(line)
    assert part.page == page


@pytest.mark.parametrize(
    "line", ["{{run?run=1}}", "{{system?x=1}}", "{{compare}}", "see {{compare?runs=1}}", "{{a b?c}}"]
)
def test_what_names_no_such_page_is_text(line):
    assert parse(line) == [line]


def test_a_view_is_read_as_it_was_written():
    assert parse(write_line("runs", "text=a%7D%7D+b")) == [Embedded("runs", "text=a%7D%7D+b")]
    assert parse("\n \n") == []
