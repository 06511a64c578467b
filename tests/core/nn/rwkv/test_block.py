"""Whole blocks of RWKV: those of the authors' formulas, causal, and decoded from their states as in one go."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import RwkvConfig
from transformers.models.rwkv.modeling_rwkv import RwkvBlock as HuggingFaceBlock

from core.nn.rwkv.block import RwkvBlock
from core.nn.rwkv.mixing import Place, shifted

HUGGING_FACE = {
    "norm0": "pre_ln",
    "norm1": "ln1",
    "norm2": "ln2",
    "time_mix.mix_k": "attention.time_mix_key",
    "time_mix.mix_v": "attention.time_mix_value",
    "time_mix.mix_r": "attention.time_mix_receptance",
    "time_mix.wkv.decay": "attention.time_decay",
    "time_mix.wkv.bonus": "attention.time_first",
    "time_mix": "attention",
    "channel_mix.mix_k": "feed_forward.time_mix_key",
    "channel_mix.mix_r": "feed_forward.time_mix_receptance",
    "channel_mix": "feed_forward",
}


def made(version: int, *, first: bool = True) -> RwkvBlock:
    """A block in float64 none of whose parameters is zero."""
    torch.manual_seed(0)
    block = RwkvBlock(12, version=version, hidden=20, head_dim=4, first=first)
    block.initialize_(Place(1, 3), torch.Generator().manual_seed(1))
    for parameter in block.parameters():
        nn.init.normal_(parameter, mean=0.3 if parameter.dim() == 1 else 0.0, std=0.3)
    return block.double()


def oracle(block: RwkvBlock, x: torch.Tensor) -> torch.Tensor:
    """Versions 5 and 6 token after token, from equations 18 to 22 of the paper."""
    mix: nn.Module = block.time_mix
    x = block.norm0(x)
    normed = block.norm1(x)
    state = x.new_zeros(len(x), 3, 4, 4)
    outputs = []
    for t in range(x.shape[1]):
        now, before = normed[:, t], normed[:, t - 1] if t else torch.zeros_like(normed[:, 0])
        if block.version == 5:
            k, v, r, g = (now * mu + before * (1 - mu) for mu in (mix.mix_k, mix.mix_v, mix.mix_r, mix.mix_g))
            rate = mix.decay.expand(len(x), -1)
        else:
            delta = before - now
            inner = torch.tanh(mix.mix_down(now + delta * mix.mix_x)).unflatten(1, (5, -1))
            mus = (mix.mix_w, mix.mix_k, mix.mix_v, mix.mix_r, mix.mix_g)
            w, k, v, r, g = (now + delta * (mu + mix.mix_up[i](inner[:, i])) for i, mu in enumerate(mus))
            rate = mix.decay + mix.decay_up(torch.tanh(mix.decay_down(w)))
        k, v, r = (linear(part).view(-1, 3, 4) for linear, part in ((mix.key, k), (mix.value, v), (mix.receptance, r)))
        outer = k[..., :, None] * v[..., None, :]
        read = (r[:, :, None] @ (mix.bonus.view(3, 4, 1) * outer + state)).flatten(2)  # [B, 3, 4]
        state = (-rate.exp()).exp().view(-1, 3, 4, 1) * state + outer
        centred = read - read.mean(-1, keepdim=True)
        read = centred / (read.var(-1, correction=0, keepdim=True) + 64e-5).sqrt()
        read = read.flatten(1) * mix.norm.weight + mix.norm.bias
        outputs.append(mix.output(F.silu(mix.gate(g)) * read))
    x = x + torch.stack(outputs, dim=1)
    normed, channel = block.norm2(x), block.channel_mix
    before = F.pad(normed, (0, 0, 1, 0))[:, :-1]
    k, r = (normed * mu + before * (1 - mu) for mu in (channel.mix_k, channel.mix_r))
    return x + torch.sigmoid(channel.receptance(r)) * channel.value(F.relu(channel.key(k)) ** 2)


def test_version_4_is_hugging_faces():
    block = made(4)
    config = RwkvConfig(hidden_size=12, attention_hidden_size=12, intermediate_size=20, num_hidden_layers=3)
    theirs = HuggingFaceBlock(config, layer_id=0).double()
    state = {}
    for name, tensor in block.state_dict().items():
        own = max((part for part in HUGGING_FACE if name.startswith(part)), key=len)
        state[name.replace(own, HUGGING_FACE[own], 1)] = tensor
    shaped = {name: tensor.view_as(theirs.get_parameter(name)) for name, tensor in state.items()}
    theirs.load_state_dict(shaped)
    x = torch.randn(2, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(block(x), theirs(x)[0], atol=1e-5, rtol=1e-5)  # theirs rounds keys to float32


@pytest.mark.parametrize("version", [5, 6])
def test_later_versions_are_the_papers_token_after_token(version):
    block = made(version)
    x = torch.randn(2, 11, 12, dtype=torch.float64)
    torch.testing.assert_close(block(x), oracle(block, x))


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize("pieces", [[1] * 9, [5, 4], [1, 7, 1]])
def test_pieces_with_a_cache_are_the_whole(version, pieces):
    block = made(version)
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    cache = block.make_cache(9)
    parts = []
    for piece in x.split(pieces, dim=1):
        parts.append(block(piece, cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), block(x))
    assert cache.length == 9


@pytest.mark.parametrize("version", [4, 5, 6])
def test_a_token_is_blind_to_those_after_it_and_sees_all_before(version):
    block = made(version, first=False)
    x = torch.randn(1, 8, 12, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[:, 4].sum(), x)
    assert gradient[:, :5].abs().sum(-1).gt(0).all() and not gradient[:, 5:].any()


@pytest.mark.parametrize("version", [4, 5, 6])
def test_every_parameter_learns(version):
    block = made(version)
    block(torch.randn(2, 6, 12, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in block.parameters())


@pytest.mark.parametrize("version", [4, 5, 6])
def test_the_state_is_in_float32_whatever_the_weights_are_in(version):
    block = made(version).bfloat16()
    cache = block.make_cache(4)
    y = block(torch.randn(2, 4, 12, dtype=torch.bfloat16), cache=cache)
    assert y.dtype == torch.bfloat16
    assert cache.tensors["state"].dtype == torch.float32
    block = made(version).float()
    with torch.autocast("cpu", torch.bfloat16):
        block(torch.randn(2, 4, 12), cache=(cache := block.make_cache(4)))
    assert cache.tensors["state"].dtype == torch.float32


@pytest.mark.parametrize("version", [4, 5, 6])
@pytest.mark.parametrize("place", [Place(0, 1), Place(0, 4), Place(3, 4)])
def test_a_block_begins_as_the_identity_behind_its_norm(version, place):
    block = RwkvBlock(16, version=version, hidden=24, head_dim=4, first=False)
    block.initialize_(place, torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(block(x), x)
    assert all(p.isfinite().all() for p in block.parameters())


class CountOperators(TorchDispatchMode):
    """How many operators PyTorch is asked for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("version", [4, 5, 6])
def test_training_asks_for_no_operators_of_each_token(version):
    block = RwkvBlock(8, version=version, hidden=8, head_dim=4, first=False)
    block.initialize_(Place(0, 1), None)
    counts = []
    for length in (256, 512):
        with CountOperators() as counter:
            block(torch.randn(1, length, 8)).sum().backward()
        counts.append(counter.count)
    assert counts[1] - counts[0] < 256 / 2  # a tree has one round more; chunks of 64 tokens pass a state on


def test_initial_rates_and_bonuses_are_the_authors():
    block = RwkvBlock(5, version=4, hidden=8, head_dim=5, first=False)
    block.initialize_(Place(2, 3), None)
    expected = [-5 + 8 * (h / 4) ** 2.0 for h in range(5)]
    torch.testing.assert_close(block.time_mix.wkv.decay.tolist(), expected)
    log = -1.2039728
    torch.testing.assert_close(block.time_mix.wkv.bonus.tolist(), [log, log + 0.5, log - 0.5, log, log + 0.5])
    torch.testing.assert_close(block.time_mix.mix_k.tolist(), [(i / 5) ** (1 / 3) for i in range(5)])
    torch.testing.assert_close(block.time_mix.mix_v.tolist(), [(i / 5) ** (1 / 3) + 0.3 for i in range(5)])
    block = RwkvBlock(5, version=6, hidden=8, head_dim=5, first=False)
    block.initialize_(Place(0, 3), None)
    torch.testing.assert_close(block.time_mix.decay.tolist(), [-6 + 5 * (h / 4) ** 0.7 for h in range(5)])
    torch.testing.assert_close(block.time_mix.mix_r.tolist(), [1 - (i / 5) ** 0.5 for i in range(5)])
    torch.testing.assert_close(block.time_mix.norm.weight.tolist(), [(1 / 3) ** 0.7] * 5)


def test_before_the_first_token_is_nothing_or_the_last_of_the_piece_before():
    x = torch.arange(6.0).view(1, 3, 2)
    assert shifted(x, None).tolist() == [[[0, 0], [0, 1], [2, 3]]]
    assert shifted(x, torch.tensor([[8.0, 9.0]])).tolist() == [[[8, 9], [0, 1], [2, 3]]]
