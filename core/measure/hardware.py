"""Which device a measurement was taken on, in the words of a chart's legend."""

import platform
from functools import cache
from pathlib import Path

import psutil
import torch


@cache
def hardware_name(device_type: str) -> str:
    """The GPU's name, or the CPU's with its cores."""
    if device_type == "cuda":
        return torch.cuda.get_device_name()
    return f"{_cpu_name()}, {psutil.cpu_count(logical=True)} cores"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
