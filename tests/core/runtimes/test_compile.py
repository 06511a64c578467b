import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from core.runtimes import compile as runtime
from core.runtimes.base import Refused
from core.runtimes.compile import COMPILER, Compile, compiled

CPU = torch.device("cpu")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, pixel_values):
        return torch.relu(self.linear(pixel_values))


def test_without_a_compiler_it_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(Refused, match="needs a C"):
        compiled(Small(), CPU, torch.float32, {})


@pytest.fixture
def compilers(monkeypatch):
    """Names of the compilers that seem to be installed, each of version 12."""
    found = set()
    monkeypatch.setattr(runtime.shutil, "which", lambda name: f"/usr/bin/{name}" if name in found else None)
    monkeypatch.setattr(
        runtime.subprocess, "run", lambda command, **_: SimpleNamespace(stdout=f"{command[0]} 12\nCopyright\n")
    )
    runtime._compiler_version.cache_clear()
    yield found
    runtime._compiler_version.cache_clear()


def test_a_worker_provides_a_compiler_where_one_is_installed(compilers, monkeypatch):
    assert Compile.provided("cpu") == set()
    runtime._compiler_version.cache_clear()
    compilers.add("g++")
    assert Compile.provided("cpu") == {COMPILER}
    assert Compile.software("cpu") == "/usr/bin/g++ 12"
    versions = {"triton": None}
    monkeypatch.setattr(runtime, "installed_version", versions.get)
    assert Compile.provided("gpu") == set()  # a GPU needs Triton too
    versions["triton"] = "3.5"
    assert Compile.provided("gpu") == {COMPILER}
    assert Compile.software("gpu") == "/usr/bin/g++ 12, triton 3.5"


def test_the_mode_is_the_compilers(monkeypatch):
    seen = {}
    monkeypatch.setattr(runtime.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "compile", lambda model, **options: seen.update(options) or model)
    Compile(mode="max-autotune").load(Small(), CPU, torch.float32, {"pixel_values": torch.randn(2, 4)})
    assert seen == {"dynamic": False, "mode": "max-autotune"}


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, runtime.COMPILERS)), reason="no C++ compiler")
def test_the_compiled_model_gives_the_models_outputs():
    model, x = Small(), torch.randn(2, 4)
    runner = compiled(model, CPU, torch.float32, {"pixel_values": x})
    torch.testing.assert_close(runner({"pixel_values": x}), model(x))
    assert runner.decoder() is None
