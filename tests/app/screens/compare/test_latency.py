"""Latencies stand beside what is compared only where they were measured alike."""

import pandas as pd

from app.screens.compare import latency
from tests import factories


def latencies(*rows: tuple[int, int, int, float]) -> pd.DataFrame:
    """Rows of (run, stage, batch, median in ms)."""
    common = {"phase": "forward", "length": None, "runtime": "eager", "threads": 2, "p95_ms": 9.0, "disturbed": False}
    return latency.add_conditions(
        pd.DataFrame(
            [
                {
                    **common,
                    "hardware": factories.HARDWARE,
                    "run_id": run,
                    "stage_id": stage,
                    "batch": batch,
                    "p50_ms": ms,
                }
                for run, stage, batch, ms in rows
            ]
        )
    )


ITEMS = pd.DataFrame({"run_id": [1, 2, 3], "stage_id": [10, 20, 30]})


def test_conditions_of_the_most_stages_come_first():
    offered = latency.list_conditions(latencies((1, 10, 1, 1.0), (1, 10, 64, 5.0), (2, 20, 64, 6.0)))
    assert [conditions.split(", ")[1] for conditions in offered] == ["batch 64", "batch 1"]


def test_times_are_those_of_the_conditions_and_what_has_others_is_timed_too():
    found = latencies((1, 10, 1, 1.0), (1, 10, 64, 5.0), (2, 20, 64, 6.0), (2, 20, 64, 7.0))
    told = latency.join_latencies(
        ITEMS, found, next(name for name in latency.list_conditions(found) if "batch 1," in name)
    )
    assert told["is_timed"].tolist() == [True, True, False]
    assert told["p50_ms"].fillna(-1).tolist() == [1.0, -1, -1]
    last = latency.join_latencies(ITEMS, found, latency.list_conditions(found)[0])
    assert last["p50_ms"].fillna(-1).tolist() == [5.0, 7.0, -1]  # the later of two of the same conditions


def test_nothing_is_timed_where_there_are_no_latencies():
    none = latency.add_conditions(pd.DataFrame())
    assert latency.list_conditions(none) == []
    assert latency.join_latencies(ITEMS, none, None)["is_timed"].tolist() == [False] * 3
