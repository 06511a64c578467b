"""gMLP's block: the paper's formula, every token by itself at first, causal where asked, decoded as in one go."""

import pytest
import torch
from torch.nn import functional as F

from core.nn.gmlp import GmlpBlock


def made(*, causal: bool, drawn: bool = True) -> GmlpBlock:
    """A block of 7 tokens; `drawn`: with a map over the tokens that is not near zero."""
    block = GmlpBlock(4, hidden=10, tokens=7, causal=causal)
    generator = torch.Generator().manual_seed(0)
    block.initialize_(generator)
    if drawn:
        for parameter in (block.gate.spatial_weight, block.gate.spatial_bias, block.gate.norm.bias):
            torch.nn.init.normal_(parameter, generator=generator)
    return block.double()


def tokens(length: int = 7) -> torch.Tensor:
    return torch.randn(2, length, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_the_papers_formula_token_after_token(causal):
    block, x = made(causal=causal), tokens()
    u, v = F.gelu(block.up(block.norm1(x))).split(5, dim=-1)
    v = block.gate.norm(v)
    gated = torch.zeros_like(u)
    for t in range(7):
        seen = range(t + 1) if causal else range(7)
        total = sum(block.gate.spatial_weight[t, s] * v[:, s] for s in seen) + block.gate.spatial_bias[t]
        gated[:, t] = u[:, t] * total
    torch.testing.assert_close(block(x), x + block.down(gated))


@pytest.mark.parametrize("causal", [True, False])
def test_at_first_a_token_is_by_itself(causal):
    block, x = made(causal=causal, drawn=False), tokens()
    u, _ = F.gelu(block.up(block.norm1(x))).split(5, dim=-1)
    torch.testing.assert_close(block(x), x + block.down(u), atol=5e-3, rtol=5e-3)  # the gate is 1, nearly
    assert block.gate.spatial_weight.any() and (block.gate.spatial_bias == 1).all()


def test_a_token_is_blind_to_those_after_it_and_sees_all_before():
    block, x = made(causal=True), tokens().requires_grad_()
    (gradient,) = torch.autograd.grad(block(x)[:, 3].sum(), x)
    assert gradient[:, :4].abs().sum(-1).gt(0).all() and not gradient[:, 4:].any()
    (gradient,) = torch.autograd.grad(made(causal=False)(x)[:, 3].sum(), x)
    assert gradient.abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("pieces", [[1] * 7, [4, 1, 2], [2, 5]])
def test_pieces_with_a_cache_are_the_whole(pieces):
    block, x = made(causal=True), tokens()
    cache = block.make_cache(100)
    parts = [block(piece, cache=cache) for piece in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), block(x))
    assert cache.length == 7
    with pytest.raises(ValueError, match="made for 7 tokens, not 8"):
        block(tokens(1), cache=cache)


def test_a_shorter_text_uses_the_corner_and_padding_is_as_if_it_were_not_there():
    block, x = made(causal=False), tokens()
    alone = block(x[:, :5])
    mask = torch.tensor([[True] * 5 + [False] * 2]).expand(2, -1)
    torch.testing.assert_close(block(x, mask=mask)[:, :5], alone)
    assert not torch.allclose(block(x)[:, :5], alone)
    causal = made(causal=True)
    torch.testing.assert_close(causal(x)[:, :5], causal(x[:, :5]))


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="made for 7 tokens, not 8"):
        made(causal=False)(tokens(8))
    cache = made(causal=True).make_cache(3)
    with pytest.raises(ValueError, match="holds 3 tokens, not 4"):
        made(causal=True)(tokens(4), cache=cache)


def test_every_parameter_learns():
    block = made(causal=True, drawn=False)
    block(tokens()).square().sum().backward()
    assert all(p.grad.any() for p in block.parameters())
    assert not block.gate.spatial_weight.grad.triu(1).any()
