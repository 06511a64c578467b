"""Which software computes a stage: Slimboard's release, a digest of the code involved, torch and plug-ins."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch

from core.plugins import list_packages

CORE = Path(__file__).parent
NOT_COMPUTING = (  # files and folders of core/ that only read, keep, check or publish what was computed
    "analysis",
    "artifacts/zip_stream.py",
    "bundle",
    "complexity",
    "publish.py",
    "publish_settings.py",
    "spec/run_references.py",
    "spec/schema_validation.py",
    "store",
    "tasks/preview.py",
    "tasks/upload.py",
)


@cache
def software() -> str:
    """Slimboard's release and digest, torch's version, and the versions of plug-in packages."""
    return " ".join([f"slimboard {release()} {digest(CORE)[:16]} torch {torch.__version__}", *list_packages()])


def digest(folder: Path) -> str:
    """SHA-256 over the code in a copy of `core/` that computes a stage; the same for every checkout of a release."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).as_posix()
        if computes_a_stage(name):
            total.update(name.encode())
            total.update(file.read_bytes())
    return total.hexdigest()


def computes_a_stage(name: str) -> bool:
    """Whether a file of `core/`, given by its relative path, takes part in computing a stage."""
    return not any(name == left_out or name.startswith(f"{left_out}/") for left_out in NOT_COMPUTING)


def release() -> str:
    """Slimboard's version."""
    try:
        return distribution("slimboard").version
    except PackageNotFoundError:
        return "unreleased"
