"""What this worker is and what it provides. Executed in a separate process, because it loads torch."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from core.measure.hardware import cpu_features, hardware_name
from core.provides import provides
from core.publish import describe_catalogue
from core.software import release

VERSIONS = ("torch", "transformers", "datasets", "onnxruntime", "triton", "safetensors")


@dataclass(frozen=True)
class Description:
    """The published description of a worker."""

    hardware: dict[str, Any]
    provides: list[str]  # what techniques and runtimes may require; see `core.provides`
    offers: dict[str, str]  # "technique:rtn" -> schema hash
    entries: list[tuple[str, str, str, dict[str, Any]]]  # kind, name, hash, entry of all that it offers


def describe(device: str) -> Description:
    """This host with its device, and the techniques, models, tasks and runtimes of this installation."""
    gpu = _gpu() if device == "gpu" else {}
    hardware = {
        "name": hardware_name("cuda" if device == "gpu" else "cpu"),
        "host": platform.node(),
        "cpu": hardware_name("cpu"),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "threads": torch.get_num_threads(),
        "features": cpu_features(),
        "memory_bytes": measure_memory(),
        **gpu,
        "kernels": _kernels(device),
        "versions": {"slimboard": release(), "python": platform.python_version(), **_versions()},
        "commit": commit(),
        "platform": platform.platform(),
    }
    entries = [
        (kind.removesuffix("s"), name, entry["hash"], entry)
        for kind, table in describe_catalogue().items()
        for name, entry in table.items()
    ]
    offers = {f"{kind}:{name}": digest for kind, name, digest, _ in entries}
    return Description(hardware, provides(device), offers, entries)


def measure_memory() -> int:
    """Memory that this process may use: the host's, or its container's limit."""
    limit = Path("/sys/fs/cgroup/memory.max")
    total = int(psutil.virtual_memory().total)
    if limit.exists():
        text = limit.read_text().strip()
        return min(total, int(text)) if text.isdecimal() else total
    return total


def commit() -> str:
    """The commit of the checkout or of the image; empty if unknown."""
    given = os.environ.get("SLIMBOARD_COMMIT", "")
    root = Path(__file__).parents[1]
    if given or not (root / ".git").exists():
        return given
    asked = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
    )
    return asked.stdout.strip()


def _gpu() -> dict[str, Any]:
    if not torch.cuda.is_available():
        raise RuntimeError("this worker was started for a GPU, but torch finds none")
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def _kernels(device: str) -> list[str]:
    """Installed libraries of fast kernels."""
    found = [f"quantized {engine}" for engine in torch.backends.quantized.supported_engines if engine != "none"]
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        found.append("oneDNN")
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        found.append("MKL")
    if device == "gpu":
        found.append(f"cuDNN {torch.backends.cudnn.version()}")  # type: ignore[no-untyped-call]
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
