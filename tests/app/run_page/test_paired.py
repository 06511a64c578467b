"""Each stage's score is tested against the stage before it, not against the reference."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from app.run_page.paired import p_values
from core.artifact_store import MANIFEST
from core.settings import settings

STAGE = {"score_name": "accuracy", "p_value": None, "reference_stage_id": 1}


def keep(key: str, right: list[int]) -> None:
    """The artifact of a stage, as far as a paired test reads it."""
    folder = settings().home / "artifacts" / key[:2] / key
    folder.mkdir(parents=True)
    save_file({"correct": np.array(right, dtype=np.float32)}, folder / "examples.safetensors")
    (folder / MANIFEST).write_text("{}")


def stages(*changes: dict) -> pd.DataFrame:
    rows = [{**STAGE, "position": n, "stage_id": n, "key": f"{n:064x}", **c} for n, c in enumerate(changes, start=1)]
    return pd.DataFrame(rows)


@pytest.mark.usefixtures("store")
def test_stages_are_tested_against_the_one_before():
    for n, n_right in enumerate((20, 10, 11), start=1):
        keep(f"{n:064x}", [1] * n_right + [0] * (20 - n_right))
    tested = p_values(stages({}, {"p_value": 0.5}, {"p_value": 0.004}))
    assert tested == {2: 0.5, 3: 1.0}  # against the reference the run's own; then one gained and none lost


@pytest.mark.usefixtures("store")
def test_what_has_no_results_here_is_not_tested():
    keep(f"{2:064x}", [1, 0])
    assert p_values(stages({}, {}, {})) == {}
