"""BigBird against a dense masked softmax, the counts of its authors' masks, and their rules for random blocks."""

import pytest
import torch

from core.nn.attention.bigbird import BigBirdAttention, draw_random_blocks, internal_pattern, legal_blocks
from core.nn.attention.block_layout import BlockLayout
from core.nn.attention.full import FullAttention
from core.nn.catalogue import REPLACEMENTS
from tests.core.nn.attention.oracle import (
    LargestTensor,
    assert_same_with_gradients,
    bigbird_mask,
    dense_mask,
    masked_softmax,
    random_qkv,
)


def bigbird(length, *, block=4, random=2, global_tokens=0, heads=4, kv_heads=2, seed=0):
    full = FullAttention(8 * heads, heads, kv_heads=kv_heads)
    made = BigBirdAttention.from_attention(full, block=block, random=random, length=length, global_tokens=global_tokens)
    made.initialize_(torch.Generator().manual_seed(seed))
    return made


@pytest.mark.parametrize(("length", "count"), [(1024, 142), (2048, 302), (4096, 622), (8192, 1262), (16384, 2542)])
def test_as_many_blocks_as_in_the_authors_masks(length, count):
    drawn = draw_random_blocks(length // 64, 2, 3, internal=True, generator=None)
    pattern = internal_pattern(BlockLayout(64, 0, length), length // 64, drawn)
    assert sum(part.keys[0].numel() for part in pattern) == count
    mask = dense_mask(pattern, length // 64, 1, 2)  # which also refuses blocks that count twice
    assert mask.sum(dim=(1, 2)).tolist() == [count, count]


def test_rows_see_the_ends_the_neighbours_and_three_more():
    n = 20
    drawn = draw_random_blocks(n, 3, 3, internal=True, generator=torch.Generator().manual_seed(0))
    mask = dense_mask(internal_pattern(BlockLayout(64, 0, n * 64), n, drawn), n, 1, 3)
    assert mask[:, [0, -1]].all()
    assert mask[:, :, [0, -1]].all()
    place = torch.arange(n)
    assert mask[:, (place[:, None] - place).abs() <= 1].all()
    assert mask[0].sum(dim=1).tolist() == [n, 7, *[8] * (n - 4), 7, n]
    assert not torch.equal(mask[0], mask[1])  # each head draws its own


def test_illegal_blocks_are_never_drawn():
    for n in (9, 14):
        drawn = draw_random_blocks(n, 200, 3, internal=True, generator=torch.Generator().manual_seed(0))
        for row in range(1, n - 1):
            expected = set(range(1, n - 1)) - {row - 1, row, row + 1}
            expected -= {n - 2} if row == 1 else {1} if row == n - 2 else set()
            assert set(drawn[:, row].flatten().tolist()) == expected
            assert all(len(set(own)) == 3 for own in drawn[:, row].tolist())
    assert legal_blocks(8, internal=False).sum(dim=1).tolist() == [6, 5, 5, 5, 5, 5, 5, 6]


@pytest.mark.parametrize("global_tokens", [0, 3, 4, 9])
@pytest.mark.parametrize("random", [0, 1, 3])
@pytest.mark.parametrize("length", [48, 47, 45, 44, 43, 40, 21, 9, 3])
def test_equals_a_dense_masked_softmax_forward_and_backward(length, random, global_tokens):
    attention = bigbird(48, random=random, global_tokens=global_tokens)
    q, k, v = random_qkv(global_tokens + length)
    mine = attention.attend(q, k, v, None, None)
    mask = bigbird_mask(attention, length)
    assert not mask.all() or length < 20
    assert_same_with_gradients(mine, masked_softmax(q, k, v, mask[None]), (q, k, v))


@pytest.mark.parametrize("global_tokens", [0, 3])
def test_padding_is_never_seen_and_its_amount_changes_nothing(global_tokens):
    torch.manual_seed(0)
    attention = bigbird(48, global_tokens=global_tokens).double()
    texts = torch.randn(2, global_tokens + 48, 32, dtype=torch.float64)
    lengths = torch.tensor([[30], [9]]) + global_tokens
    mask = torch.arange(global_tokens + 48) < lengths
    padded = attention(texts, mask=mask)
    for index, length in enumerate(lengths.flatten().tolist()):
        alone = attention(texts[index : index + 1, :length])
        torch.testing.assert_close(padded[index : index + 1, :length], alone, rtol=0, atol=1e-12)
    other = torch.where(mask[:, :, None], texts, 7.0)
    torch.testing.assert_close(attention(other, mask=mask)[mask], padded[mask], rtol=0, atol=0)


@pytest.mark.parametrize(("global_tokens", "blocks"), [(0, 7), (2, 5)])
def test_texts_of_no_more_blocks_than_a_block_sees_get_full_attention(global_tokens, blocks):
    few, more = (bigbird(4 * (blocks + extra), random=2, global_tokens=global_tokens) for extra in (0, 1))
    assert few.is_full and not more.is_full
    assert few.random_blocks.numel() == 0
    x = torch.randn(2, global_tokens + 4 * blocks, 32)
    full = FullAttention(32, 4, kv_heads=2)
    for name in "qkvo":
        setattr(full, name, getattr(few, name))
    torch.testing.assert_close(few(x), full(x))


def test_longer_texts_than_it_was_drawn_for_are_refused():
    with pytest.raises(ValueError, match="made for 48 tokens, not 49"):
        bigbird(48)(torch.randn(1, 49, 32))


def test_the_generator_decides_the_random_blocks():
    assert torch.equal(bigbird(64, seed=1).random_blocks, bigbird(64, seed=1).random_blocks)
    assert not torch.equal(bigbird(64, seed=1).random_blocks, bigbird(64, seed=2).random_blocks)


@pytest.mark.parametrize("global_tokens", [0, 64])
def test_nothing_near_the_matrix_of_all_scores_is_made(global_tokens):
    length = 8192
    attention = bigbird(length, block=64, random=3, global_tokens=global_tokens, heads=1, kv_heads=1)
    x = torch.randn(1, global_tokens + length, 8, requires_grad=True)
    with LargestTensor() as largest:
        attention(x).sum().backward()
    assert 64 * length <= largest.entries < length * length / 60


def test_arguments_make_an_equal_module():
    made = bigbird(100, block=8, global_tokens=2)
    assert REPLACEMENTS["BigBirdAttention"] is BigBirdAttention
    with torch.device("meta"):
        again = BigBirdAttention(**made.arguments())
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in made.state_dict().items()}
    again.initialize_(None)
    assert again(torch.empty(1, 90, 32, device="meta")).shape == (1, 90, 32)


def test_extended_rows_see_global_blocks_the_neighbours_and_random_ones():
    attention = bigbird(80, random=3, global_tokens=6)  # 20 blocks of 4, two of global tokens
    layout = BlockLayout(4, 6, 80)
    mask = dense_mask(attention.pattern(layout), 22, 1, 4)
    place = torch.arange(20)
    assert mask[:, :2].all()
    assert mask[:, :, :2].all()
    assert mask[:, 2:, 2:][:, (place[:, None] - place).abs() <= 1].all()
    assert mask[0].sum(dim=1).tolist() == [22, 22, 7, *[8] * 18, 7]


def test_equals_hugging_faces_block_sparse_attention_with_its_random_blocks():
    numpy, transformers = pytest.importorskip("numpy"), pytest.importorskip("transformers")
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    length, block, heads = 64, 4, 4
    config = transformers.BigBirdConfig(
        hidden_size=32, num_attention_heads=heads, block_size=block, num_random_blocks=2, max_position_embeddings=length
    )
    theirs = BigBirdBlockSparseAttention(config, seed=3).double().train()  # in eval() its random blocks are all block 0
    numpy.random.seed(3)
    plan = theirs._get_rand_attn_plan(length, block, 2)
    drawn = theirs._bigbird_block_rand_mask_with_head(length, length, block, block, heads, *plan)
    mine = bigbird(length, block=block, random=2, heads=heads, kv_heads=heads).double()
    mine.random_blocks[:, 1:-1] = torch.from_numpy(numpy.stack(drawn))
    mine.q, mine.k, mine.v, mine.o = theirs.query, theirs.key, theirs.value, torch.nn.Identity()
    x = torch.randn(2, length, 32, dtype=torch.float64)
    seen = torch.ones(2, length, dtype=torch.float64)
    seen[0, 50:] = 0
    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(seen, block)
    expected, _ = theirs(x, band, rows, columns, blocked, blocked)
    real = seen.bool()
    torch.testing.assert_close(mine(x, mask=real)[real], expected[real], rtol=0, atol=1e-10)
