from dataclasses import fields

import pytest

from core.errors import SpecError
from core.publish_settings import DOCUMENT, insert_table, make_table
from core.settings import Settings


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_described_and_documented(field):
    assert field.metadata["description"]
    assert field.metadata["variable"].startswith(f"SLIMBOARD_{field.name.upper()}")
    assert f"| `{field.metadata['variable']}` |" in DOCUMENT.read_text()


def test_the_documented_table_is_up_to_date():
    text = DOCUMENT.read_text()
    assert insert_table(text) == text, "run: python -m core.publish_settings"


def test_the_table_replaces_only_what_is_between_its_marks():
    text = DOCUMENT.read_text()
    stale = text.replace(make_table(), "| old |\n")
    assert stale != text
    assert insert_table(stale) == text


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path))
    monkeypatch.setenv("SLIMBOARD_REDIS_URL", "redis://queue:6379/0")
    found = Settings()
    assert found.database_url == f"sqlite:///{tmp_path}/slimboard.db"
    assert found.redis_url == "redis://queue:6379/0"
    assert found.artifacts_url == f"{tmp_path}/artifacts"


def test_numbers_are_read_as_numbers_and_empty_variables_are_not_set(monkeypatch):
    monkeypatch.setenv("SLIMBOARD_PORT", "9000")
    monkeypatch.setenv("SLIMBOARD_LEASE_SECONDS", "2.5")
    monkeypatch.setenv("SLIMBOARD_UPLOAD_MB", "")
    found = Settings(host="0.0.0.0")
    assert (found.port, found.lease_seconds, found.upload_mb, found.host) == (9000, 2.5, 2000, "0.0.0.0")


@pytest.mark.parametrize(
    ("variable", "text", "wanted"),
    [
        ("SLIMBOARD_PORT", "http", "whole number"),
        ("SLIMBOARD_PORT", "85.01", "whole number"),
        ("SLIMBOARD_TIMER_SECONDS", "0", "positive number"),
        ("SLIMBOARD_STOP_SECONDS", "nan", "positive number"),
    ],
)
def test_a_setting_that_is_no_number_is_refused_by_name(monkeypatch, variable, text, wanted):
    monkeypatch.setenv(variable, text)
    with pytest.raises(SpecError, match=f"{variable} = '{text}': is not a {wanted}"):
        Settings()
