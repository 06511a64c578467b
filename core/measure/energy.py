"""Energy: joules as reported by the hardware, where it reports them.

An NVIDIA GPU counts through NVML (Volta and later), an Intel or AMD processor through RAPL, which Linux exposes
in powercap, usually to root only. Both count the whole device, including its idle power: values are comparable only
on the same hardware and with the same method. The NVML code has not been run on a GPU.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pynvml
import torch

from core.measure.work import Work

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")  # AMD's too; core and graphics zones lie inside it
_MEMORY = re.compile(r"intel-rapl:\d+:\d+")
BURST_SECONDS = 0.5  # of work between two readings: NVML renews its counter every tenth of a second or so


@dataclass(frozen=True)
class Counter:
    """A counter of joules that wraps around after `range_joules` (None: never)."""

    read: Callable[[], float]
    range_joules: float | None = None

    def since(self, before: float) -> float:
        """Joules used since it read `before`; correct for at most one wrap-around in between."""
        now = self.read()
        return now - before if now >= before or self.range_joules is None else now - before + self.range_joules


@dataclass(frozen=True)
class Meter:
    """Counters that together cover a device."""

    counters: tuple[Counter, ...]

    def start(self) -> Callable[[], float]:
        """Start counting; the returned function gives the joules used since."""
        before = [counter.read() for counter in self.counters]
        return lambda: sum(counter.since(b) for counter, b in zip(self.counters, before, strict=True))


def energy_mj(meter: Meter, work: Work, call_ms: float) -> float | None:
    """Millijoules of one call, as the mean over `BURST_SECONDS` of calls; None if the counters do not advance.

    `call_ms` is the approximate duration of a call. Preparations are excluded.
    """
    wanted = max(1, round(1e3 * BURST_SECONDS / max(call_ms, 1e-4)))
    joules, done = 0.0, 0
    while done < wanted:
        n_calls = work.n_calls or wanted
        work.prepare()
        work.finish()
        used = meter.start()
        work.repeat(n_calls)
        work.finish()
        joules += used()
        done += n_calls
    return 1e3 * joules / done if joules > 0 else None


@cache
def find_meter(device_type: str) -> Meter | None:
    """The meter of this host's GPU or processor; None if its counters do not exist or are not readable."""
    if device_type != "cuda":
        return cpu_meter()
    return gpu_meter(pynvml, str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))


def gpu_meter(nvml: Any, uuid: str) -> Meter | None:
    """The meter of the GPU with this UUID by `nvml` (the module pynvml); None if the GPU has no counter."""
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        counter = Counter(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)  # millijoules
        counter.read()
    except nvml.NVMLError:
        return None
    return Meter((counter,))


def cpu_meter(powercap: Path = POWERCAP) -> Meter | None:
    """The meter of all processor packages and their memory; None if a package is not readable."""
    zones = dict(_zones(powercap))
    packages = [zone for zone, name in zones.items() if _PACKAGE.fullmatch(zone.name) and name.startswith("package")]
    memory = [zone for zone, name in zones.items() if _MEMORY.fullmatch(zone.name) and name == "dram"]
    counters = [_counter(zone) for zone in (*packages, *memory)]
    if not packages or None in counters:
        return None
    return Meter(tuple(counter for counter in counters if counter is not None))


def _zones(powercap: Path) -> Iterator[tuple[Path, str]]:
    for zone in sorted(powercap.glob("intel-rapl:*")):
        with contextlib.suppress(OSError):  # no zone of its own, or hidden from us
            yield zone, (zone / "name").read_text().strip()


def _counter(zone: Path) -> Counter | None:
    def read() -> float:
        return int((zone / "energy_uj").read_text()) / 1e6

    try:
        read()
        return Counter(read, int((zone / "max_energy_range_uj").read_text()) / 1e6)
    except OSError:
        return None
