"""Reading the plain tables of a page under test."""

import json
from typing import Any

import pandas as pd
from streamlit.testing.v1 import AppTest


def given(at: AppTest, number: int = 0) -> dict[str, Any]:
    """What the browser is given to draw one of the page's plain tables from."""
    return json.loads(at.get("bidi_component")[number].proto.json)


def frame(at: AppTest, number: int = 0) -> pd.DataFrame:
    """A table's cells under their heads, wherever their lines break; the index are the rows' ids."""
    table = given(at, number)
    heads = [column["name"] for column in table["columns"]]
    ids = [row["id"] for row in table["rows"]]
    cells = pd.DataFrame([row["cells"] for row in table["rows"]], columns=heads, index=ids)
    return cells.map(lambda text: text.replace("\N{NO-BREAK SPACE}", " "))
