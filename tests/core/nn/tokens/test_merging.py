"""Merged tokens stand for what they took up: nothing is lost where they were equal."""

import pytest
import torch
from torch.nn import functional as F

from core.nn.tokens.merging import match, merge
from core.nn.tokens.sizes import masked_attention, mean_token, proportional_attention, with_sizes


def test_the_most_similar_pairs_are_merged_by_size():
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.1]]])  # evens 0 and 2, odds 1 and 3
    staying, going, target = match(x, merged=1, protected=0)
    assert (staying.tolist(), going.tolist(), target.tolist()) == ([[0]], [[1]], [[0]])  # 2 into 1: cosine 1
    merged, sizes = merge(x, torch.tensor([[1.0, 3.0, 1.0, 1.0]]), (staying, going, target), protected=0)
    torch.testing.assert_close(merged, torch.tensor([[[1.0, 0.0], [0.0, 1.5], [1.0, 0.1]]]))  # (3 * 1 + 1 * 3) / 4
    assert sizes.tolist() == [[1.0, 4.0, 1.0]]


@pytest.mark.parametrize("protected", [0, 1, 2])
@pytest.mark.parametrize(("tokens", "merged"), [(17, 4), (16, 3), (18, 100), (3, 1)])
def test_sizes_sum_to_the_tokens_and_protected_ones_stay_alone_in_front(tokens, merged, protected):
    x = torch.randn(5, tokens, 8, generator=torch.Generator().manual_seed(tokens))
    out, sizes = merge(x, torch.ones(5, tokens), match(x, merged, protected), protected)
    assert out.shape[1] == tokens - min(merged, (tokens - protected) // 2)
    assert (sizes.sum(1) == tokens).all()
    torch.testing.assert_close(out[:, :protected], x[:, :protected])
    assert (sizes[:, :protected] == 1).all()
    torch.testing.assert_close((out * sizes[..., None]).sum(1), x.sum(1))  # a weighted mean loses no mass


def test_every_target_takes_up_all_that_goes_into_it():
    x = torch.ones(1, 6, 4)
    x[0, 1] = -1.0  # no even token resembles it
    out, sizes = merge(x, torch.ones(1, 6), match(x, 3, 0), 0)
    assert sorted(sizes[0].tolist()) == [1.0, 1.0, 4.0]
    torch.testing.assert_close(out[sizes == 4.0], torch.ones(1, 4))


def test_a_key_of_size_s_acts_as_s_equal_keys():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    sizes = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    repeated = torch.arange(5).repeat_interleave(sizes.long())
    expected = F.scaled_dot_product_attention(q, k[:, :, repeated], v[:, :, repeated])
    torch.testing.assert_close(proportional_attention(q, k, v, sizes.expand(2, 5)), expected)


def test_masked_attention_sees_the_kept_tokens_and_itself():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    kept = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    mixed = masked_attention(q, k, v, kept)
    allowed = kept.detach().bool()[0].expand(4, 4) | torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(mixed, F.scaled_dot_product_attention(q, k, v, attn_mask=allowed))
    mixed.sum().backward()
    assert (kept.grad != 0).all()  # also for what is dropped now: or it could never come back


def test_the_mean_counts_tokens_by_size():
    x = torch.tensor([[[1.0], [4.0]]])
    assert mean_token(x).item() == 2.5
    assert mean_token(with_sizes(x.clone(), torch.tensor([[2.0, 1.0]]))).item() == 2.0


def test_an_image_whose_tokens_were_all_dropped_has_a_mean_and_gradients():
    x, kept = torch.tensor([[[1.0], [4.0]]], requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    mean = mean_token(with_sizes(x.clone(), kept))
    mean.sum().backward()
    assert mean.item() == 0
    assert kept.grad.tolist() == [[1.0, 4.0]]
