"""Embeddings with packed tables."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.algorithms.number_formats import FormatScheme
from core.algorithms.packed_layers import as_linear
from core.nn.packed_embedding import PackedEmbedding
from core.nn.replacement import executed
from core.techniques.quantization.dynamic_int8 import quantize as quantize_int8
from core.techniques.quantization.rtn import Rtn

QUANTIZERS = {
    "8 bits": Rtn(bits=8).quantize,
    "3 bits, groups, affine": Rtn(bits=3, granularity="group", group_size=8, symmetric=False).quantize,
    "int8": quantize_int8,
    "NVFP4": FormatScheme("nvfp4").quantize,
    "FP8 blocks": FormatScheme("fp8_e4m3", "block").quantize,
    "NF4 double": FormatScheme("nf4_double").quantize,
}


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,), ()])
def test_rows_are_those_of_the_dequantized_table(quantizer, shape):
    torch.manual_seed(0)
    table = QUANTIZERS[quantizer](as_linear(nn.Embedding(150, 20)))
    tokens = torch.randint(150, shape)
    found = PackedEmbedding.of(table)(tokens)
    assert torch.equal(found, F.embedding(tokens, table.weight()))


def test_only_the_rows_that_are_looked_up_are_unpacked(monkeypatch):
    table = Rtn(bits=4).quantize(as_linear(nn.Embedding(50, 16)))
    expected = table.weight()[[7, 7, 3]]
    monkeypatch.setattr(type(table), "weight", None)
    assert torch.equal(PackedEmbedding.of(table)(torch.tensor([7, 7, 3])), expected)


def test_rows_are_in_the_dtype_that_the_model_is_cast_to():
    embedding = PackedEmbedding.of(Rtn(bits=4).quantize(as_linear(nn.Embedding(50, 16)))).to(torch.bfloat16)
    assert embedding(torch.tensor([1])).dtype == torch.bfloat16
    assert torch.equal(embedding.dense().weight, embedding.table.weight().bfloat16())


def test_a_table_needs_no_kernel_unless_it_is_the_head_too():
    table = Rtn(bits=3).quantize(as_linear(nn.Embedding(50, 16)))
    embedding = PackedEmbedding.of(table)
    assert list(executed(embedding)) == [embedding]
    assert table in list(executed(nn.ModuleList([embedding, table])))
