import torch
from torch import nn
from torch.nn import functional as F

from core.measure.compute import count, count_macs, count_weights
from core.nn.replacement import Replacement, WeightCount


class Packed(Replacement):
    """A 4 x 8 matrix of codes whose kernel does not show in torch's counter."""

    def __init__(self):
        super().__init__()
        self.codes = nn.Buffer(torch.zeros(16, dtype=torch.uint8))
        self.scale = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.ones(4))

    def count(self):
        return WeightCount(weights=32, nonzeros=16, bits=4)

    def forward(self, x):
        return x[..., :4] * self.scale + self.bias


class HalfPacked(Packed):
    """Its kernel skips the zeros."""

    def macs(self, shape):
        return shape.numel() // 8 * 16


class Unpacking(Packed):
    def forward(self, x):
        return F.linear(x, torch.zeros(4, 8)) + F.linear(x, torch.zeros(4, 8))


class Outer(Unpacking):
    def __init__(self):
        super().__init__()
        self.inner = Packed()

    def forward(self, x):
        return self.inner(x)


class Attention(nn.Module):
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(8))

    def inactive_parameters(self):
        return 6 * 16


class Decoder(nn.Module):
    """Counts 16 multiply-accumulates a token, and 4 for each token it has seen."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)

    def make_cache(self, max_length):
        return [torch.zeros(0, 4)]

    def generate(self):
        raise NotImplementedError

    def forward(self, input_ids, cache=None):
        x = self.linear(input_ids[0, :, None].float().expand(-1, 4))
        keys = x if cache is None else torch.cat([cache[0], x])
        if cache is not None:
            cache[0] = keys
        return (x @ keys.T)[None]


def test_weights_macs_and_bits_of_a_small_network_are_exact():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False))
    with torch.no_grad():
        model[0].weight[:, :2] = 0
        model[0].bias.fill_(1)
    found = count(nn.ModuleDict({"pixel_values": model})["pixel_values"], {"input": torch.ones(5, 8)})
    assert found.parameters == found.active_parameters == 8 * 16 + 16 + 16 * 4
    assert found.nonzeros == found.parameters - 2 * 16
    assert found.macs == 8 * 16 + 16 * 4  # of one example, not of the batch's five
    assert found.bits == 32
    assert found.sparsity == 32 / (8 * 16 + 16 * 4)
    assert found.decode_macs is None


def test_convolutions_count_every_place_and_group():
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    assert count_macs(conv, {"input": torch.ones(1, 4, 5, 5)}) == 25 * 6 * (4 // 2) * 9


def test_attention_counts_both_products_on_this_device():
    q, k = torch.ones(1, 2, 10, 4), torch.ones(1, 2, 10, 4)
    assert count_macs(Attention(), {"q": q, "k": k, "v": k}) == 2 * (2 * 10 * 10 * 4)


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    assert count_weights(model).parameters == 40


def test_two_parts_of_one_storage_both_count():
    flat = torch.ones(20)
    model = nn.ParameterList([nn.Parameter(flat[:10]), nn.Parameter(flat[10:])])
    assert count_weights(model).parameters == 20


def test_packed_modules_count_as_the_matrices_they_stand_for():
    found = count_weights(nn.Sequential(Packed(), nn.Linear(4, 2, bias=False).to(torch.float16)))
    assert found.parameters == 32 + 4 + 8  # its matrix and bias; the scale is packing
    assert found.nonzeros == 16 + 4 + 8
    assert found.bits == (32 * 4 + 8 * 16) / 40
    assert found.sparsity == 16 / 40


def test_a_packed_module_used_twice_counts_once():
    packed = Packed()
    assert count_weights(nn.Sequential(packed, nn.Sequential(packed))).parameters == 36
    second = Packed()
    second.codes, second.scale = packed.codes, packed.scale
    assert count_weights(nn.Sequential(packed, second)).parameters == 36 + 4  # only its bias is its own


def test_packed_macs_are_its_kernels():
    x = {"input": torch.ones(3, 7, 8)}
    assert count_macs(nn.Sequential(Packed()), x) == 21 * 32
    assert count_macs(nn.Sequential(HalfPacked()), x) == 21 * 16
    assert count_macs(nn.Sequential(Unpacking()), x) == 21 * 32  # what the counter saw of it is taken back
    assert count_macs(nn.Sequential(Outer()), x) == 21 * 32  # the one inside is part of it
    assert count_macs(nn.Sequential(nn.Linear(8, 8), HalfPacked()), x) == 21 * (64 + 16)


def test_experts_that_a_token_does_not_meet_are_not_active():
    found = count_weights(nn.Sequential(Experts(), nn.Linear(4, 2)))
    assert found.parameters == 8 * 16 + 10
    assert found.active_parameters == 2 * 16 + 10


def test_language_models_count_per_token_and_per_generated_token():
    found = count(Decoder(), {"input_ids": torch.ones(2, 10, dtype=torch.long)}, per_token=True, decode=True)
    assert found.macs == (10 * 16 + 10 * 10 * 4) / 10
    assert found.decode_macs == 16 + 10 * 4  # the tenth token meets ten keys


def test_counting_leaves_mode_and_hooks_as_they_were():
    model = nn.Sequential(Packed()).train()
    count_macs(model, {"input": torch.ones(1, 8)})
    assert model.training
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_each_packed_module_is_counted_once():
    class Counted(Packed):
        calls = 0

        def count(self):
            self.calls += 1
            return super().count()

    class Model(Decoder):
        def __init__(self):
            super().__init__()
            self.packed = Counted()

        def forward(self, input_ids, cache=None):
            return super().forward(input_ids, cache) + self.packed(torch.ones(1, input_ids.shape[1], 8)).sum()

    model = Model()
    found = count(model, {"input_ids": torch.arange(6)[None]}, per_token=True, decode=True)
    assert model.packed.calls == 1
    assert found.decode_macs == 16 + 4 * 6 + 32  # the packed matrix meets the new token alone
