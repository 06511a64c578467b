import pytest

from core.publish_settings import DOCUMENT, table, with_table
from core.settings import Settings


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described_and_documented(name):
    info = Settings.model_fields[name]
    variable = info.alias or f"SLIMBOARD_{name.upper()}"
    assert info.description
    assert f"| `{variable}` |" in DOCUMENT.read_text()


def test_the_documented_table_is_up_to_date():
    text = DOCUMENT.read_text()
    assert with_table(text) == text, "run: python -m core.publish_settings"


def test_the_table_replaces_only_what_is_between_its_marks():
    text = DOCUMENT.read_text()
    stale = text.replace(table(), "| old |\n")
    assert stale != text
    assert with_table(stale) == text


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path))
    monkeypatch.setenv("SLIMBOARD_REDIS_URL", "redis://queue:6379/0")
    found = Settings()
    assert found.database_url == f"sqlite:///{tmp_path}/slimboard.db"
    assert found.redis_url == "redis://queue:6379/0"
    assert found.artifacts_url == f"{tmp_path}/artifacts"
