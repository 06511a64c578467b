"""Reading the plain tables of a page under test."""

import json
from typing import Any

import pandas as pd
from streamlit.testing.v1 import AppTest


def given(at: AppTest) -> dict[str, Any]:
    """What the browser is given to draw the page's first plain table from."""
    return json.loads(at.get("bidi_component")[0].proto.json)


def frame(at: AppTest) -> pd.DataFrame:
    """The table's cells under their heads, the index the rows' ids."""
    table = given(at)
    heads = [column["name"] for column in table["columns"]]
    ids = [row["id"] for row in table["rows"]]
    return pd.DataFrame([row["cells"] for row in table["rows"]], columns=heads, index=ids)
