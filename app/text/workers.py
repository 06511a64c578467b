"""Workers as text: hardware, software and current activity."""

from collections.abc import Mapping
from typing import Any

from app.text import formats


def describe_state(worker: Mapping[str, Any]) -> str:
    """A worker's state in one word."""
    if worker["stopped_at"] is not None:
        return "stopped"
    return "lost" if worker["lost"] else "running"


def describe_activity(worker: Mapping[str, Any]) -> str:
    """What a worker is doing: "run 12 (40 %)", "idle", or a dash if it is not running."""
    if worker["run_id"]:
        return f"run {worker['run_id']} ({formats.percent(worker['run_progress'], 0)})"
    return "idle" if describe_state(worker) == "running" else formats.NOTHING


def describe_hardware(hardware: Mapping[str, Any]) -> str:
    """A worker's processor or GPU on one line."""
    memory = hardware.get("memory_bytes")
    parts = [hardware.get("name"), memory and formats.size(memory)]
    return ", ".join(str(part) for part in parts if part) or formats.NOTHING


def describe_software(hardware: Mapping[str, Any]) -> str:
    """A worker's software versions on one line."""
    found = hardware.get("versions") or {}
    return ", ".join(f"{name} {found[name]}" for name in ("slimboard", "torch") if name in found) or formats.NOTHING
