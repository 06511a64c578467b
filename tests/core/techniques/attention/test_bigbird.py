"""BigBird as a step: what its generator decides, and when nothing is left out; more in test_sparse_patterns."""

import pytest
import torch

from core.engine.recording import MemoryRecord
from core.nn.attention.bigbird import BigBirdAttention
from core.techniques.attention.bigbird import BigBird
from tests.core.techniques.attention.subjects import applied, inputs_of, subject_of

STEP = BigBird(block=4, random_blocks=2)


def test_the_step_decides_the_random_blocks_and_layers_differ():
    first, second = applied(STEP, "vit"), applied(STEP, "vit")
    drawn = [block.attention.random_blocks for block in first.model.blocks]
    assert all(torch.equal(a, b.attention.random_blocks) for a, b in zip(drawn, second.model.blocks, strict=True))
    assert not torch.equal(drawn[0], drawn[1])
    assert all(type(block.attention) is BigBirdAttention for block in first.model.blocks)
    assert first.trained
    assert first.details["layers"][0] == {
        "name": "blocks.0.attention",
        "blocks": 17,
        "pairs computed (%)": pytest.approx(100 * (2 * 17 + 2 * 6 + 13 * 7) / 17**2),
    }


def test_a_pattern_that_covers_everything_changes_nothing_and_says_so():
    record, batch = MemoryRecord(), inputs_of("vit")
    subject = applied(BigBird(block=13, random_blocks=3), "vit", record)
    torch.testing.assert_close(subject.model(**batch), subject_of("vit").model(**batch))
    message = "5 blocks of 13 tokens already cover everything: attention stays full"
    assert record.events == [("warning", message)]
