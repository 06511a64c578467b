import pytest
import torch
from torch import nn

from core.nn.replacement import Replacement
from core.runtimes.base import Refused, kernel_of
from core.runtimes.eager import eager

CPU = torch.device("cpu")


class Swapped(Replacement):
    def __init__(self, kernel):
        super().__init__()
        self.kernel_name = kernel

    def kernel(self, device, dtype):
        return self.kernel_name


def test_the_kernels_of_all_swapped_modules_are_named():
    assert kernel_of(nn.Sequential(nn.Linear(2, 2)), CPU, torch.float32) == "dense"
    assert kernel_of(nn.Sequential(Swapped("dense"), Swapped("int8"), Swapped("int8")), CPU, torch.float32) == "int8"
    assert kernel_of(nn.Sequential(Swapped("int8"), Swapped("csr")), CPU, torch.float32) == "csr + int8"


def test_one_packed_module_without_a_kernel_is_size_only():
    model = nn.Sequential(Swapped("int8"), Swapped(None))
    assert kernel_of(model, CPU, torch.float32) is None
    with pytest.raises(Refused, match=r"size only \(no kernel on this worker\)"):
        eager(model, CPU, torch.float32, {})


def test_eager_calls_the_model_without_labels():
    class Model(nn.Module):
        def forward(self, pixel_values):
            assert not self.training
            return pixel_values + 1

    runner = eager(Model().train(), CPU, torch.float32, {})
    assert runner({"pixel_values": torch.ones(1), "labels": torch.ones(1)}).item() == 2
    assert runner.decoder() is None
