"""In what runs differ, beside one another."""

import pandas as pd

from app.screens.compare import tables


def test_environments_are_told_where_they_differ_and_in_words():
    environments = [{"worker": "a", "tf32": True, "torch": "2"}, {"worker": "b", "tf32": False, "torch": "2"}, None]
    items = pd.DataFrame({"run_id": [1, 2, 3], "run_environment": environments})
    told = tables.list_differing_environments(items)
    assert told.loc["tf32"].to_dict() == {"run 1": "yes", "run 2": "no", "run 3": "–"}
    assert list(told.index) == ["tf32", "torch"]  # run 3 tells of neither
