"""ETC as a step: where its global tokens stand, and when only its labels are new; more in test_sparse_patterns."""

import torch

from core.engine.recording import MemoryRecord
from core.nn.attention.etc import EtcAttention
from core.nn.tokens.global_tokens import GlobalTokens
from core.techniques.attention.etc import Etc
from tests.core.techniques.attention.subjects import applied, inputs_of


def test_global_tokens_stand_in_front_of_the_blocks_and_not_behind_them():
    subject = applied(Etc(radius=5, global_tokens=3, max_distance=2), "encoder")
    seen = {}
    subject.model.blocks[0].register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    subject.model.norm.register_forward_pre_hook(lambda m, args: seen.update(after=args[0]))
    subject.model(**inputs_of("encoder"))
    assert seen["x"].shape == (3, 3 + 65, 32)
    assert torch.equal(seen["x"][:, :3], subject.model.global_tokens.tokens.expand(3, -1, -1))
    assert seen["after"].shape == (3, 65, 32)
    assert type(subject.model.global_tokens) is GlobalTokens
    assert all(type(block.attention) is EtcAttention for block in subject.model.blocks)
    assert not subject.trained


def test_a_radius_over_everything_leaves_only_the_labels_new_and_says_so():
    record = MemoryRecord()
    applied(Etc(radius=65), "vit", record)
    assert record.events == [("warning", "radius 65 covers all 65 tokens: only the position labels are new")]
