"""Sparse attention in the layers that `block_local` with `every: 2` leaves: each is a dense masked softmax.

The global tokens that some patterns bring stand in front of the block-local layers too, whose blocks of text stay.
"""

import pytest
import torch

from core.artifacts import artifact
from core.nn.attention.block_local import BlockLocalAttention
from core.techniques.attention.bigbird import BigBird
from core.techniques.attention.block_local import BlockLocal
from core.techniques.attention.etc import Etc
from core.techniques.attention.sliding_window import SlidingWindow
from tests.core.fakes import context
from tests.core.nn.attention.oracle import bigbird_mask, etc_labels, masked_softmax
from tests.core.techniques.attention.subjects import applied, inputs_of

BLOCK = 8
STEPS = {
    "bigbird": BigBird(block=4, random_blocks=2),
    "bigbird with global tokens": BigBird(block=4, random_blocks=1, global_tokens=3),
    "bigbird with many global tokens": BigBird(block=4, random_blocks=1, global_tokens=11),
    "etc": Etc(radius=5, global_tokens=3, max_distance=2),
    "etc of segments": Etc(radius=5, global_tokens=4, max_distance=2, hard=True, isolated=True),
    "sliding window with global tokens": SlidingWindow(window=5, global_tokens=2),
}


def mixed(name, kind):
    subject = applied(BlockLocal(block=BLOCK, every=2), kind)
    STEPS[name].check(subject)
    STEPS[name].apply(subject, context(subject))
    return subject


def by_masked_softmax(attention, x, padding, n_globals):
    """What an attention should make of tokens x [B, n_globals + T, dim]; `padding` [B, n_globals + T] or None."""
    q, k, v = attention.project(x)
    place, bias = torch.arange(x.shape[1]) - n_globals, 0.0
    if isinstance(attention, BlockLocalAttention):
        block = torch.where(place < 0, -1 - (place + n_globals) // BLOCK, place // BLOCK)
        seen = block[:, None] == block
    elif hasattr(attention, "window"):
        seen = ((place[:, None] - place).abs() < attention.window) | (place < 0) | (place[:, None] < 0)
    elif hasattr(attention, "radius"):
        seen, bias = etc_labels(attention, q)
    else:
        seen = bigbird_mask(attention, x.shape[1] - n_globals)
    if padding is not None:
        seen = seen & padding[:, None, None, :]
    return attention.o(masked_softmax(q, k, v, seen, bias).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["vit", "encoder"])
@pytest.mark.parametrize("name", STEPS)
@torch.no_grad()
def test_every_layer_is_a_dense_masked_softmax(name, kind):
    model = mixed(name, kind).model.double()
    batch = {key: x.double() if x.is_floating_point() else x for key, x in inputs_of(kind).items()}
    calls = []
    for block in model.blocks:
        block.attention.register_forward_hook(
            lambda attention, args, kwargs, output: calls.append((attention, args[0], kwargs["mask"], output)),
            with_kwargs=True,
        )
    model(**batch)
    assert [type(attention) is BlockLocalAttention for attention, *_ in calls] == [True, False]
    n_globals = STEPS[name].global_tokens
    for attention, x, padding, output in calls:
        assert x.shape[1] == n_globals + 65  # with the class token
        real = torch.ones(x.shape[:2], dtype=torch.bool) if padding is None else padding.bool()
        expected = by_masked_softmax(attention, x, None if padding is None else real, n_globals)
        torch.testing.assert_close(output[real], expected[real], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STEPS)
def test_global_tokens_change_nothing_in_the_block_local_layers(name):
    """Tokens of the text leave the first layer as without them."""
    seen = []
    for subject in (applied(BlockLocal(block=BLOCK, every=2), "encoder"), mixed(name, "encoder")):
        subject.model.blocks[0].register_forward_hook(lambda block, args, output: seen.append(output))
        with torch.no_grad():
            subject.model(**inputs_of("encoder"))
    before, after = seen
    assert after.shape[1] - before.shape[1] == STEPS[name].global_tokens
    torch.testing.assert_close(after[:, -65:][0::2], before[0::2])  # the second text is padded


@pytest.mark.parametrize("name", STEPS)
def test_a_model_rebuilt_from_its_artifacts_form_gives_the_same(name):
    subject, batch = mixed(name, "encoder"), inputs_of("encoder")
    again = artifact._bare(subject.configs["main"], artifact.list_replacements(subject.model))
    again.load_state_dict(subject.model.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch), subject.model(**batch))
