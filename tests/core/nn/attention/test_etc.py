"""ETC: the reference's labels, full attention with them as the oracle, and its structured masks."""

import pytest
import torch

from core.nn.attention.etc import EtcAttention, Relations, offset_labels
from core.nn.attention.full import FullAttention
from core.nn.catalogue import REPLACEMENTS
from tests.core.nn.attention.oracle import (
    LargestTensor,
    assert_same_with_gradients,
    etc_labels,
    masked_softmax,
    random_qkv,
)


def etc(*, radius=4, max_distance=3, global_tokens=3, length=40, kv_heads=2, **options):
    made = EtcAttention.from_attention(
        FullAttention(32, 4, kv_heads=kv_heads),
        radius=radius,
        max_distance=max_distance,
        global_tokens=global_tokens,
        length=length,
        **options,
    )
    made.initialize_(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(made.long_biases)
    torch.nn.init.normal_(made.global_biases)
    return made.double()


def oracle(attention, q, k, v, mask=None):
    """Two softmaxes, written out over the whole matrix: [B, h, g + T, d]."""
    seen, bias = etc_labels(attention, q)
    return masked_softmax(q, k, v, seen if mask is None else seen & mask[:, None, None, :], bias)


def test_labels_are_the_reference_s():
    place = torch.arange(6)
    rows = offset_labels(place[None, :] - place[:, None], 3).tolist()
    assert rows[:3] == [[0, 1, 2, 3, 3, 3], [4, 0, 1, 2, 3, 3], [5, 4, 0, 1, 2, 3]]
    assert rows[5] == [6, 6, 6, 5, 4, 0]


def test_tokens_belong_to_the_text_and_to_one_segment():
    relations = Relations(3, 3, 10, hard=False, isolated=False)  # two segments of 5
    long, global_ = torch.arange(10)[None, :], torch.arange(3)[:, None]
    assert relations.belong(long, global_).int().tolist() == [[1] * 10, [1] * 5 + [0] * 5, [0] * 5 + [1] * 5]


@pytest.mark.parametrize("options", [{}, {"hard": True}, {"isolated": True}, {"hard": True, "isolated": True}])
@pytest.mark.parametrize(
    ("radius", "max_distance", "global_tokens", "length"),
    [(4, 3, 3, 40), (4, 3, 3, 37), (1, 0, 1, 12), (9, 2, 7, 33), (200, 3, 2, 30), (3, 12, 12, 4), (150, 2, 3, 400)],
)
def test_equals_two_dense_softmaxes_forward_and_backward(radius, max_distance, global_tokens, length, options):
    if length == 400 and options:
        pytest.skip("one long case of blocks finer than the radius is enough")
    attention = etc(radius=radius, max_distance=max_distance, global_tokens=global_tokens, length=length, **options)
    q, k, v = random_qkv(global_tokens + length, batch=1 if length == 400 else 2)
    inputs = (q, k, v, *(getattr(attention, name) for name in EtcAttention.per_head))
    mine, theirs = attention.attend(q, k, v, None, None), oracle(attention, q, k, v)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    used = [x for x in inputs if global_tokens > 0]
    assert_same_with_gradients(mine, theirs, used)


def test_a_radius_over_the_whole_text_is_full_attention_where_labels_say_nothing():
    full = FullAttention(32, 4)
    made = EtcAttention.from_attention(full, radius=40, max_distance=3, global_tokens=3, length=40)
    x = torch.randn(2, 43, 32)
    torch.testing.assert_close(made(x), full(x), rtol=1e-5, atol=1e-6)
    made.initialize_(torch.Generator().manual_seed(0))
    assert not torch.allclose(made(x), full(x), atol=1e-3)


def test_padding_is_never_seen_and_its_amount_changes_nothing():
    attention = etc()
    texts = torch.randn(2, 43, 32, dtype=torch.float64)
    mask = torch.arange(43) < torch.tensor([[30], [9]])
    padded = attention(texts, mask=mask)
    for index, length in enumerate((30, 9)):
        alone = attention(texts[index : index + 1, :length])
        torch.testing.assert_close(padded[index : index + 1, :length], alone, rtol=0, atol=1e-12)


def test_segments_that_see_only_themselves_may_change_places():
    attention = etc(radius=12, max_distance=0, global_tokens=4, length=36, hard=True, isolated=True)
    q, k, v = random_qkv(40)  # three segments of 12, their tokens 1 to 3
    order = torch.tensor([2, 0, 1])
    moved = torch.cat((torch.tensor([0]), order + 1, (4 + order[:, None] * 12 + torch.arange(12)).flatten()))
    before = attention.attend(q, k, v, None, None)[:, :, moved]
    after = attention.attend(q[:, :, moved], k[:, :, moved], v[:, :, moved], None, None)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)
    loose = etc(radius=12, max_distance=0, global_tokens=4, length=36, hard=True)
    before = loose.attend(q, k, v, None, None)[:, :, moved]
    assert not torch.allclose(loose.attend(q[:, :, moved], k[:, :, moved], v[:, :, moved], None, None), before)


def test_fewer_pairs_than_dense_by_as_much_as_the_paper_says():
    g, length, radius = 256, 4096, 84
    assert g * (g + length) + length * (g + 2 * radius + 1) == 2_854_912 < (g + length) ** 2 == 18_939_904


def test_labels_vectors_are_drawn_as_in_the_authors_code():
    made = EtcAttention(512, 8, radius=8, max_distance=12, global_tokens=4, length=64)
    made.initialize_(torch.Generator().manual_seed(0))
    assert made.long_vectors.shape == (8, 27, 64)
    assert made.long_vectors.abs().max() <= 1
    assert 0.43 < made.long_vectors.std() < 0.45  # 0.88 of 0.5, as the tails are cut
    assert not made.long_biases.any()


def test_nothing_near_the_matrix_of_all_scores_is_made():
    length = 8192
    attention = EtcAttention(8, 1, radius=63, max_distance=4, global_tokens=64, length=length)
    x = torch.randn(1, 64 + length, 8, requires_grad=True)
    with LargestTensor() as largest:
        attention(x).sum().backward()
    assert largest.entries < length * length / 60


def test_arguments_make_an_equal_module():
    made = etc(hard=True)
    assert REPLACEMENTS["EtcAttention"] is EtcAttention
    with torch.device("meta"):
        again = EtcAttention(**made.arguments())
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in made.state_dict().items()}
    assert again.arguments() == made.arguments()
    assert again(torch.empty(1, 43, 32, device="meta")).shape == (1, 43, 32)
