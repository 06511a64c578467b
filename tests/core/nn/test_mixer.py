"""MLP-Mixer's token mixing: the paper's formula, the same for every channel, blind to padding."""

import pytest
import torch
from torch.nn import functional as F

from core.nn.mixer import TokenMixing


def made(tokens: int = 5, hidden: int = 7) -> TokenMixing:
    mixing = TokenMixing(tokens, hidden)
    mixing.initialize_(torch.Generator().manual_seed(0))
    for linear in (mixing.up, mixing.down):
        torch.nn.init.normal_(linear.bias, generator=torch.Generator().manual_seed(1))
    return mixing.double()


def test_every_channel_goes_through_the_same_network_over_the_tokens():
    mixing = made()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    mixed = mixing(x)
    for example in range(2):
        for channel in range(3):
            column = x[example, :, channel]
            inner = F.gelu(mixing.up.weight @ column + mixing.up.bias)
            torch.testing.assert_close(mixed[example, :, channel], mixing.down.weight @ inner + mixing.down.bias)


def test_padding_is_as_if_it_were_not_there():
    mixing = made()
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    alone = mixing(x)
    garbage = torch.cat((x, torch.full((1, 2, 4), 9.0, dtype=torch.float64)), dim=1)
    mask = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(mixing(garbage, mask=mask)[:, :3], alone)
    assert alone.shape == x.shape
    assert not torch.allclose(mixing(garbage)[:, :3], alone)


def test_more_tokens_than_it_was_made_for_are_refused():
    with pytest.raises(ValueError, match="made for 5 tokens, not 6"):
        made()(torch.randn(1, 6, 4, dtype=torch.float64))


def test_initial_weights_keep_the_variance():
    mixing = TokenMixing(400, 300)
    mixing.initialize_(torch.Generator().manual_seed(0))
    assert mixing.up.weight.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert mixing.down.weight.std().item() == pytest.approx(300**-0.5, rel=0.02)
    assert not mixing.up.bias.any() and not mixing.down.bias.any()
