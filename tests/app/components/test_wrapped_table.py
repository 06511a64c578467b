"""Cells break between words and before brackets, never within a quantity; texts of users stay as they are."""

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.components.wrapped_table import GREY, wrap_cell


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("1.98 ms / 2.40 ms", "1.98~ms / 2.40~ms"),
        ("550 kB (2.80× smaller)", "550~kB (2.80×~smaller)"),
        ("−0.9 points, not significant", "−0.9~points, not significant"),
        ("94.4 % (92.0 % to 96.4 %)", "94.4~% (92.0~%~to~96.4~%)"),
        ("2 · train 500 updates", "2~· train 500 updates"),
        ("3 mice", "3 mice"),
    ],
)
def test_a_number_stays_with_its_unit_and_brackets_stay_whole(text, held):
    assert wrap_cell(text) == held.replace("~", "\N{NO-BREAK SPACE}")


def drawn() -> None:
    import pandas as pd

    from app.components import wrapped_table

    table = pd.DataFrame({"Link": ["[a](run?run=1)", "b"], "Name": ["*a*", "b"]}, index=[4, 4])
    wrapped_table.show(table, markdown={"Link"})
    wrapped_table.show(table, [True, False])


def test_only_columns_that_are_markdown_are_read_as_such():
    plain, grey = AppTest.from_function(drawn).run().table
    assert plain.value["Link"].tolist() == ["[a](run?run=1)", "b"]
    assert plain.value["Name"].tolist() == grey.value["Name"].tolist() == [r"\*a\*", "b"]
    assert grey.value["Link"][0] == r"\[a\](run?run=1)"
    assert GREY in str(grey.proto) and GREY not in str(plain.proto)
    assert isinstance(plain.value, pd.DataFrame)
