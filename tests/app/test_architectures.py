"""The survey of architectures as a table, a page and a command."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

import app
from app.cli import main
from app.screens.architectures.table import describe_conditions, make_table
from core.complexity import report as reports
from core.complexity import survey as surveys
from core.errors import SpecError
from core.settings import settings
from tests.core.complexity.reports import measured, report

MAIN = Path(app.__file__).with_name("main.py")
SURVEY = report(
    measured("full attention", 2),
    measured("retnet", 1, operations=2.0),
    measured("mixer", 1, decodes=False),
    refused={"moe": "does | not fit"},
)


def opened() -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30).run()
    at.switch_page("screens/architectures/page.py")
    at.run()
    assert not at.exception
    return at


def test_table_says_how_each_cost_grows_and_what_it_is_at_the_longest():
    full, retnet, mixer = make_table(SURVEY)
    assert full["Forward and backward"] == "16.8 s (T^2.00 ± 0.00)"
    assert retnet["Forward and backward"] == "4.10 ms (T^1.00 ± 0.00)"
    assert full["Decoded token"] == "0.500 ms (T^0.00 ± 0.00)"
    assert (full["Trains in parallel"], retnet["Trains in parallel"]) == ("yes", "block by block")
    assert mixer["Decoded token"] == mixer["Decoding state"] == "–"


def test_conditions_are_named():
    line = describe_conditions(SURVEY.conditions)
    for part in ("A processor, 2 cores", "2 threads", "torch 2.13.0", "float32", "7 interleaved", "3 % of the cores"):
        assert part in line


def test_page_shows_the_shipped_survey_where_nothing_was_measured(store):
    at = opened()
    names = [architecture.name for architecture in reports.load_shipped().architectures]
    assert [cell.split("](")[0].strip("[") for cell in at.table[0].value["Architecture"]] == names
    assert "slimboard architectures --save" in at.info[0].value


def test_page_shows_this_installations_survey_first(store):
    reports.save(SURVEY)
    at = opened()
    assert at.table[0].value["Architecture"][1] == "[retnet](https://arxiv.org/abs/1706.03762)"
    assert any("moe could not be measured: does \\| not fit" in caption.value for caption in at.caption)
    assert not at.info
    control = next(each for each in at.button_group if each.label == "Measured by")
    control.set_value("Shipped with Slimboard").run()
    assert len(at.table[0].value) == len(reports.load_shipped().architectures)


def test_quantity_that_no_shown_architecture_has(store):
    reports.save(report(measured("mixer", 1, decodes=False)))
    at = opened()
    control = next(each for each in at.button_group if each.label == "Quantity")
    control.set_value("decode_ms").run()
    assert not at.exception and "None of the visible architectures" in at.info[0].value


def test_a_survey_that_cannot_be_read_is_told(store):
    folder = Path(settings().artifacts_url)
    folder.mkdir(parents=True)
    (folder / reports.NAME).write_text("{}")
    at = opened()
    assert "unreadable" in at.warning[0].value and len(at.table) == 1


@pytest.fixture
def asked(monkeypatch) -> list:
    """What the command asks to be measured."""
    calls = []

    def survey(lengths, rounds, only, say):
        calls.append((lengths, rounds, list(only)))
        say("timing")
        return SURVEY

    monkeypatch.setattr(surveys, "survey", survey)
    return calls


def test_command_measures_prints_and_saves(store, asked, tmp_path):
    file = tmp_path / "out.json"
    arguments = ["architectures", "--lengths", "512, 256", "--rounds", "3", "--only", "sliding_window"]
    done = CliRunner().invoke(main.cli, [*arguments, "--save", "--output", str(file)])
    assert done.exit_code == 0, done.output
    assert asked == [([256, 512], 3, ["sliding_window"])]
    assert "T^2.00 ± 0.00" in done.stdout and "moe is skipped: does | not fit" in done.stdout
    assert "timing" in done.stderr and "timing" not in done.stdout
    assert reports.load() == SURVEY and json.loads(file.read_text())["lengths"] == SURVEY.lengths


def test_command_saves_nothing_unless_asked(store, asked):
    assert CliRunner().invoke(main.cli, ["architectures"]).exit_code == 0
    assert reports.load() is None and asked[0][0] == [256, 512, 1024, 2048, 4096]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--lengths", "12"], "lengths = '?12'?.*64 to 16,384"),
        (["--lengths", "256,256"], "contains a length twice"),
        (["--lengths", "many"], "are not valid sequence lengths"),
        (["--only", "rtn"], "only = .*is not an architecture"),
    ],
)
def test_command_refuses_what_cannot_be_measured(store, asked, arguments, problem):
    failed = CliRunner().invoke(main.cli, ["architectures", *arguments])
    assert isinstance(failed.exception, SpecError) and not asked
    with pytest.raises(SpecError, match=problem):
        raise failed.exception
