"""Conditions of a latency in words. Pure."""

from app import formats
from core.store.point_filter import Conditions


def condition_name(conditions: Conditions) -> str:
    """The conditions on one line, the same in an address and on the page."""
    length = f", {conditions.length} tokens" if conditions.length else ""
    threads = formats.plural(conditions.threads, "thread")
    where = f"{conditions.hardware}, {conditions.runtime}, {threads}"
    phase = "per generated token" if conditions.phase == "decode" else conditions.phase
    return f"{phase}, batch {conditions.batch}{length} · {where}"
