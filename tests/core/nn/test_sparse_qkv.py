"""Sparse QKV: a NumPy re-evaluation, causality, generation with its cache, the paper's count of weights."""

import numpy as np
import pytest
import torch

from core.nn.attention.sparse_qkv import SparseQkvAttention

DIM, HEADS, MODULES = 24, 4, 6


def layer(rotary=None, n_modules=MODULES) -> SparseQkvAttention:
    made = SparseQkvAttention(DIM, HEADS, n_modules=n_modules, rotary=rotary)
    generator = torch.Generator().manual_seed(0)
    made.initialize_(generator)
    for bias in (made.shared.bias, made.qk.bias, made.v.bias):
        torch.nn.init.normal_(bias, generator=generator)
    return made.double()


def tokens(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def convolved(image: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[T, S, channels], output by output: two rows of nothing before the first, modules padded on both sides."""
    length, n_modules, _ = image.shape
    half = weight.shape[3] // 2
    out = np.zeros((length, n_modules, len(weight)))
    for t in range(length):
        for s in range(n_modules):
            total = bias.copy()
            for i in range(3):
                for j in range(weight.shape[3]):
                    row, module = t - 2 + i, s - half + j
                    if row >= 0 and 0 <= module < n_modules:
                        total += weight[:, :, i, j] @ image[row, module]
            out[t, s] = total
    return out


def reference(made: SparseQkvAttention, x: np.ndarray) -> np.ndarray:
    """One text [T, dim] through the layer, in NumPy."""
    state = {name: p.detach().numpy() for name, p in made.named_parameters()}
    gates, projection = state["shared.gates"], state["shared.projection"].T
    image = np.einsum("...d,nd,dm->...nm", x, gates, projection) + state["shared.bias"].reshape(MODULES, -1)
    channels = DIM // MODULES
    q, k = (
        convolved(image, state["qk.weight"][part], state["qk.bias"][part])
        for part in (slice(channels), slice(channels, None))
    )
    v = convolved(image, state["v.weight"], state["v.bias"])
    q, k, v = (part.reshape(len(x), HEADS, -1) for part in (q, k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(DIM // HEADS)
    scores[:, np.triu(np.ones((len(x), len(x)), dtype=bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(len(x), DIM)


def test_it_is_what_the_authors_compute():
    made, x = layer(), tokens(7)
    for text, mixed in zip(x, made(x), strict=True):
        np.testing.assert_allclose(mixed.detach().numpy(), reference(made, text.numpy()), atol=1e-12)


@pytest.mark.parametrize("rotary", [None, 10000.0])
def test_a_later_token_changes_nothing_before_it(rotary):
    made, x = layer(rotary), tokens(9)
    before = made(x)
    for place in range(9):
        changed = x.clone()
        changed[:, place] += 1
        after = made(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.isclose(after[:, place], before[:, place]).all()


@pytest.mark.parametrize("rotary", [None, 10000.0])
@pytest.mark.parametrize("pieces", [[1] * 12, [7, 1, 1, 3], [12], [2, 10], [1, 11]])
def test_generation_with_the_cache_equals_recomputation(pieces, rotary):
    made, x = layer(rotary), tokens(12)
    cache = made.make_cache(12)
    parts = [made(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), made(x), rtol=0, atol=1e-12)
    assert cache.length == 12
    assert cache.rows.shape == (2, DIM // MODULES, 2, MODULES)
    assert cache.rows.untyped_storage().nbytes() == cache.rows.nbytes  # no view of the whole prompt


def test_modules_see_their_neighbours_on_both_sides():
    made = layer()
    x = torch.zeros(1, 3, DIM, dtype=torch.float64)
    made.shared.forward = lambda x: x  # the image is the input
    base = made.project(x)
    x[:, 1, 2 * 4 : 3 * 4] = 1.0  # module 2 of token 1
    changed = [
        (a != b).transpose(1, 2).flatten(2).view(3, MODULES, 4).any(-1)
        for a, b in zip(made.project(x), base, strict=True)
    ]
    seen_by_q = torch.tensor([[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0]], dtype=torch.bool)
    seen_by_v = torch.tensor([[0] * 6, [0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(changed[0], seen_by_q) and torch.equal(changed[1], seen_by_q)
    assert torch.equal(changed[2], seen_by_v)


def test_weights_are_those_of_the_paper():
    with torch.device("meta"):
        made = SparseQkvAttention(1024, 16, n_modules=16)
    parts = {name: p.numel() for name, p in made.named_parameters() if not name.endswith("bias")}
    assert parts["qk.weight"] == 2 * 36_864 and parts["v.weight"] == 12_288
    assert sum(parts.values()) == 167_936  # dense q, k, v, o: 4,194,304


def test_fresh_convolutions_are_glorot_each():
    made = SparseQkvAttention(128, 4, n_modules=4)
    made.initialize_(torch.Generator().manual_seed(0))
    for weight, window in ((made.qk.weight[:32], 9), (made.qk.weight[32:], 9), (made.v.weight, 3)):
        assert weight.abs().max().item() == pytest.approx((6 / (64 * window)) ** 0.5, rel=0.01)


def test_arguments_make_an_equal_module():
    made = SparseQkvAttention(DIM, HEADS, n_modules=MODULES, rotary=500.0)
    again = SparseQkvAttention(**made.arguments())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
    assert again.rotary.base == 500.0
