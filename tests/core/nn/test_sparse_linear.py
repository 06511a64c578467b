"""SparseLinear: the same numbers as the masked dense layer, in as few bytes as its layout promises."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from core.models.meta import assign_weights, empty_weights
from core.nn.sparse_linear import CSR, SparseLinear

CPU = torch.device("cpu")


def mask_of(kind: str, rows: int = 32, columns: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if ":" in kind:
        n, m = map(int, kind.split(":"))
        scores = torch.rand(rows, columns // m, m, generator=generator)
        return torch.zeros_like(scores).scatter(2, scores.topk(n, dim=2).indices, 1).bool().view(rows, columns)
    return torch.rand(rows, columns, generator=generator) < float(kind)


MASKS = ["2:4", "1:4", "4:8", "1:2", "16:32", "0.5", "0.3", "0.1", "0.03", "0.0", "1.0"]


def masked_linear(kind: str, dtype: torch.dtype = torch.float32, bias: bool = True):
    torch.manual_seed(0)
    mask = mask_of(kind)
    linear = nn.Linear(64, 32, bias=bias, dtype=dtype)
    linear.weight.data *= mask
    return linear, mask


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_come_back_bitwise(kind, dtype):
    linear, mask = masked_linear(kind, dtype)
    dense = SparseLinear.pack(linear, mask).dense()
    assert type(dense) is nn.Linear
    assert dense.weight.dtype == dtype
    assert torch.equal(dense.weight, linear.weight)
    assert torch.equal(dense.bias, linear.bias)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("shape", [(64,), (5, 64), (2, 3, 64)])
def test_outputs_are_those_of_the_masked_layer(kind, prepared, shape):
    linear, mask = masked_linear(kind)
    packed = SparseLinear.pack(linear, mask)
    if prepared:
        packed.prepare()
    x = torch.randn(shape)
    torch.testing.assert_close(packed(x), linear(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "index_bits"), [("2:4", 3 / 4), ("1:4", 2 / 4), ("4:8", 7 / 8), ("2:8", 5 / 8)])
def test_payload_is_values_and_minimal_indices(kind, index_bits):
    torch.manual_seed(0)
    mask = mask_of(kind, 128, 256)
    packed = SparseLinear.pack(nn.Linear(256, 128, bias=False), mask)
    payload = sum(t.numel() * t.element_size() for t in packed.state_dict().values())
    assert payload == math.ceil(4 * mask.sum() + mask.numel() * index_bits / 8)


@pytest.mark.parametrize("kind", MASKS)
def test_arguments_build_the_same_module_without_weights(kind):
    linear, mask = masked_linear(kind, bias=kind != "0.5")
    packed = SparseLinear.pack(linear, mask)
    with empty_weights():
        empty = SparseLinear(**json.loads(json.dumps(packed.arguments())))
    for name, tensor in packed.state_dict().items():
        assert empty.state_dict()[name].shape == tensor.shape
        assert empty.state_dict()[name].dtype == tensor.dtype
    assign_weights(empty, packed.state_dict())
    assert torch.equal(empty.weight(), linear.weight)
    assert empty.arguments() == packed.arguments()


def test_a_kept_weight_that_is_zero_stays_stored():
    linear, mask = masked_linear("2:4")
    kept = mask.nonzero()[0]
    linear.weight.data[tuple(kept)] = 0
    packed = SparseLinear.pack(linear, mask)
    assert (packed.layout.n, packed.layout.m) == (2, 4)
    assert packed.values.numel() == int(mask.sum())
    assert torch.equal(packed.weight(), linear.weight)


def test_weights_outside_the_mask_are_dropped():
    linear = nn.Linear(64, 32)
    mask = mask_of("2:4")
    assert torch.equal(SparseLinear.pack(linear, mask).weight(), linear.weight * mask)


def sparse_layer(density: float, columns: int) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    mask = mask_of(str(density), 1024, columns)
    linear = nn.Linear(columns, 1024)
    linear.weight.data *= mask
    return linear, mask


def test_csr_executes_what_is_large_and_sparse_enough_and_in_float32():
    linear, mask = sparse_layer(0.08, 512)
    packed = SparseLinear.pack(linear, mask)
    assert packed.kernel(CPU, torch.float32) == CSR
    assert packed.kernel(CPU, torch.bfloat16) is None
    assert SparseLinear.pack(*sparse_layer(0.12, 512)).kernel(CPU, torch.float32) is None
    assert SparseLinear.pack(*sparse_layer(0.08, 508)).kernel(CPU, torch.float32) is None
    shape = torch.Size([2, 5, 512])
    assert packed.macs(shape) is None
    packed.prepare()
    assert packed.macs(shape) == 10 * int(mask.sum())
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), linear(x), atol=1e-5, rtol=1e-5)
        assert packed(x).shape == (2, 5, 1024)
        assert packed(x[0, 0]).shape == (1024,)


def test_what_is_laid_out_is_neither_saved_nor_copied_nor_kept_through_a_cast():
    packed = SparseLinear.pack(*masked_linear("2:4"))
    saved = set(packed.state_dict())
    packed.prepare()
    assert set(packed.state_dict()) == saved
    assert copy.deepcopy(packed)._laid_out is None
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    packed.to(torch.bfloat16)
    assert packed(x).dtype == torch.bfloat16
    assert packed.arguments()["dtype"] == "bfloat16"


def test_count_tells_entries_nonzeros_and_bits():
    linear, mask = masked_linear("2:4", torch.bfloat16)
    count = SparseLinear.pack(linear, mask).count()
    assert (count.weights, count.nonzeros, count.bits) == (2048, int(torch.count_nonzero(linear.weight)), 16.0)
