"""The hardware of a measurement, as named in chart legends."""

import platform
from functools import cache
from pathlib import Path

import psutil
import torch

CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "sve",
)


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


def cpu_features() -> list[str]:
    """Those of CPU_FEATURES that this CPU has; empty if Linux does not report them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return []
    for line in info.read_text().splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            found = set(flags.split())
            return [feature for feature in CPU_FEATURES if feature in found]
    return []
