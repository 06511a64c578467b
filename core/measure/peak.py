"""The peak memory of a function, measured in a fresh process."""

import contextlib
import ctypes
import gc
import re
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from core.fresh_process import in_fresh_process

Value = TypeVar("Value")

M_MMAP_THRESHOLD = -3  # of glibc's mallopt
MAPPED_ABOVE = 64 * 1024  # bytes; larger blocks go back to the system as soon as they are freed
RESET_PEAK = "5"  # what /proc/self/clear_refs wants to hear


@dataclass(frozen=True)
class Peak:
    """A function's result and its peak memory."""

    value: Any
    peak_bytes: int


def measure_peak(
    function: Callable[..., object],
    *args: Any,
    device_type: str = "cpu",
    timeout: float = 600,
    tick: Callable[[], object] | None = None,
) -> Peak:
    """Run an importable function in a fresh process and measure its peak.

    It runs twice: the first run loads program code, kernels and their caches, which are not part of a model.
    """
    return in_fresh_process(_measured, function, args, device_type, timeout=timeout, tick=tick)


def measure_peaks(
    function: Callable[..., object], arguments: Sequence[tuple[Any, ...]], *, timeout: float = 600
) -> list[Peak]:
    """`peak` of several calls, one after another in one fresh process; put calls with larger peaks last.

    (On systems that cannot reset the peak, the largest one so far counts.)
    """
    return in_fresh_process(_all_measured, function, arguments, timeout=timeout)


def _all_measured(function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> list[Peak]:
    return [_measured(function, each, "cpu") for each in arguments]


def _measured(function: Callable[..., object], args: tuple[Any, ...], device_type: str) -> Peak:
    _return_freed_memory()
    function(*args)
    gc.collect()
    if device_type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = function(*args)
        return Peak(value, torch.cuda.max_memory_allocated() - before)
    _trim()
    before = _start_peak()
    value = function(*args)
    return Peak(value, max(0, _peak_bytes() - before))


def _return_freed_memory() -> None:
    """Keep glibc from holding freed blocks back.

    Otherwise it raises the threshold for returning blocks immediately to the size of the first freed block, and the
    next block is then as often next to the old one as in its place.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, MAPPED_ABOVE)


def _trim() -> None:
    """Return freed memory to the system (glibc), so that the next call does not find it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _start_peak() -> int:
    """Resident bytes now, after resetting the peak (on Linux; elsewhere the peak is that of the whole process)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some sandboxes do not have it: the first run's peak is the same, as a rule
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        return int(psutil.Process().memory_info().rss)
    return _peak_bytes()


def _peak_bytes() -> int:
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
