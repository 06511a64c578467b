"""Latency conditions as text. Pure."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from app.text import formats
from core.store.tradeoffs.filters import Conditions


def condition_name(conditions: Conditions) -> str:
    """The conditions on one line, the same in URLs and on pages."""
    where = f"{conditions.hardware}, {conditions.runtime}, {formats.plural(conditions.threads, 'thread')}"
    return f"{_work(conditions.phase, conditions.batch, conditions.length)} · {where}"


def condition_name_within(latency: Mapping[str, Any]) -> str:
    """The conditions of a run's latency without the hardware, which its latencies share, and the dtype of the stage."""
    length = None if pd.isna(latency["length"]) else int(latency["length"])
    threads = formats.plural(int(latency["threads"]), "thread")
    return f"{_work(latency['phase'], latency['batch'], length)}, {latency['runtime']}, {threads}"


def _work(phase: str, batch: int, length: int | None) -> str:
    tokens = f", {length} tokens" if length else ""
    return f"{'per generated token' if phase == 'decode' else phase}, batch {batch}{tokens}"
