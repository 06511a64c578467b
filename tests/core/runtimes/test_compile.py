import shutil

import pytest
import torch
from torch import nn

from core.runtimes import compile as runtime
from core.runtimes.base import Refused
from core.runtimes.compile import compiled

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


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, runtime.COMPILERS)), reason="no C++ compiler")
def test_the_compiled_model_gives_the_models_outputs():
    model, x = Small(), torch.randn(2, 4)
    runner = compiled(model, CPU, torch.float32, {"pixel_values": x})
    torch.testing.assert_close(runner({"pixel_values": x}), model(x))
    assert (runner.name, runner.decoder()) == ("compile", None)
