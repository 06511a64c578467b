"""The table of settings in docs/operations.md, from the settings themselves: `python -m core.publish_settings`."""

from dataclasses import fields
from pathlib import Path

from core.settings import Settings

DOCUMENT = Path(__file__).parents[1] / "docs" / "operations.md"
BEGIN, END = "<!-- settings: written by python -m core.publish_settings -->\n", "<!-- end of settings -->\n"


def make_table() -> str:
    """Every setting with its default and description, as a Markdown table."""
    rows = ["| setting | default | description |", "|---|---|---|"]
    for setting in (field.metadata for field in fields(Settings)):
        value = setting["default"]
        default = "" if value == "" else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
        rows.append(f"| `{setting['variable']}` | {default} | {setting['description']} |")
    return "\n".join(rows) + "\n"


def insert_table(text: str) -> str:
    """The document with an updated table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{make_table()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(insert_table(DOCUMENT.read_text()))
