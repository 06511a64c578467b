"""A selecting block: training masks what evaluation gathers."""

import copy

import torch

from core.nn.tokens.selecting import SelectingBlock
from core.nn.tokens.sizes import sizes_of
from core.nn.transformer import Transformer

PARTS = {part: f"attention.{part}" for part in "qkvo"} | {part: part for part in ("norm1", "norm2", "ffn")}


def block(keep: float | None = 0.5, protected: int = 1) -> SelectingBlock:
    torch.manual_seed(0)
    model = Transformer(
        dim=16, depth=1, heads=2, kv_heads=2, attention="full", attention_settings={}, ffn="mlp", ffn_dim=32, outputs=2
    )
    selecting = SelectingBlock(PARTS, 8, protected, tokens=8, dim=16, keep=keep, ratio_weight=2.0)
    selecting.adopt(model.blocks[0])
    return selecting


def force(selecting: SelectingBlock, kept: list[int]) -> None:
    """Let the predictor be sure of these patches, by their first feature."""

    def scores(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        sure = torch.full((*mask.shape, 2), 0.0)
        sure[..., 0] = -1e4
        sure[:, kept] = torch.tensor([0.0, -1e4])
        return sure

    selecting._scores = scores


def test_evaluation_gathers_what_training_would_mask():
    selecting, kept = block(), [1, 3, 4, 6]
    force(selecting, kept)
    x = torch.randn(2, 9, 16)
    with torch.no_grad():
        masked, gathered = selecting.train()(x), selecting.eval()(x)
    assert gathered.shape == (2, 5, 16)  # half of 8 patches, and the class token
    assert sizes_of(gathered) is None
    torch.testing.assert_close(masked[:, [0, *(i + 1 for i in kept)]], gathered)
    assert sizes_of(masked).tolist() == [[1, 0, 1, 0, 1, 1, 0, 1, 0]] * 2


def test_what_an_earlier_block_dropped_stays_dropped():
    first, second = block(0.5), block(0.25)
    force(first, [1, 3, 4, 6])
    force(second, [0, 1])
    x = second.train()(first.train()(torch.randn(1, 9, 16)))
    assert sizes_of(x).tolist() == [[1, 0, 1, 0, 0, 0, 0, 0, 0]]


def test_the_ratio_term_is_the_squared_distance_and_taken_once():
    selecting = block(0.5)
    force(selecting, [0])
    selecting.train()(torch.randn(3, 9, 16))
    (term,) = selecting.aux_losses().values()
    assert term.item() == 2.0 * (1 / 8 - 0.5) ** 2
    assert selecting.aux_losses() == {}
    copy.deepcopy(selecting)


def test_gradients_reach_the_predictor():
    selecting = block()
    selecting.train()(torch.randn(4, 9, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in selecting.predictor.decide.parameters())


def test_a_block_without_a_predictor_is_the_plain_one():
    selecting = block(keep=None)
    x = torch.randn(2, 9, 16)
    normed = selecting.norm1(x)
    with torch.no_grad():
        expected = x + selecting.attention(normed)
        expected = expected + selecting.ffn(selecting.norm2(expected))
        torch.testing.assert_close(selecting.eval()(x), expected)
