"""Linear attention as a step, on models of both kinds. The rest is in test_recurrent.py."""

import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.nn.attention.full import FullAttention
from core.nn.attention.linear_attention import LinearAttention
from core.techniques.architecture.linear_attention import LinearAttentionStep
from core.techniques.pruning.head_pruning import HeadPruning
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import cut_all_heads_, subject_of


def attentions(subject, kind):
    return [m for m in subject.model.modules() if type(m) is kind]


def test_every_attention_is_swapped_with_all_its_weights_and_reported():
    subject, _ = subject_of(kv_heads=2, positions="rotary")
    subject.trained, record = True, MemoryRecord()
    before = attentions(subject, FullAttention)
    LinearAttentionStep().apply(subject, context(subject, record))
    after = attentions(subject, LinearAttention)
    assert all(
        getattr(new, name) is getattr(old, name)
        for old, new in zip(before, after, strict=True)
        for name in ("q", "k", "v", "o", "rotary")
    )
    row = {"heads": 4, "state (bytes)": 4 * (4 * 8 * 8 + 2 * 8)}
    assert subject.details["layers"] == [{"name": f"blocks.{i}.attention", **row} for i in range(2)]
    assert subject.trained
    message = "linear attention uses the trained projections differently than softmax attention does: train again"
    assert record.events == [("warning", message)]


def test_a_vision_transformer_is_served_trained_and_reloaded(tmp_path):
    subject, loaded = subject_of(source="builtin:vit", task="builtin:digits", length=None)
    LinearAttentionStep().check(subject)
    LinearAttentionStep().apply(subject, context(subject))
    assert all(not m.causal for m in attentions(subject, LinearAttention))
    assert subject.details["layers"][0]["state (bytes)"] == 0
    Train(steps=2, batch_size=4, evaluations=0).apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu")).model
    batch = artifact.probe_batch(subject.task)
    assert torch.equal(again(**batch), subject.model(**batch))


def test_heads_can_still_be_cut_out():
    subject, _ = subject_of()
    LinearAttentionStep().apply(subject, context(subject))
    HeadPruning(pruning_ratio=0.5, rounds=1, importance="magnitude").apply(subject, context(subject))
    assert [m.heads for m in attentions(subject, LinearAttention)] != [4, 4]
    tokens = torch.randint(0, 256, (1, 20))
    cache = subject.model.make_cache(20)
    parts = [subject.model(part, cache=cache) for part in tokens.split([12, 1, 7], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), subject.model(tokens), rtol=1e-4, atol=1e-4)


def test_a_layer_that_has_no_heads_left_still_gives_its_bias():
    subject, _ = subject_of()
    cut_all_heads_(subject, "blocks.0.attention")
    x, tokens = torch.randn(2, 9, 32), torch.randint(0, 256, (1, 20))
    before = subject.model.blocks[0](x)
    LinearAttentionStep().apply(subject, context(subject))
    assert torch.equal(subject.model.blocks[0](x), before)
    cache = subject.model.make_cache(20)
    parts = [subject.model(part, cache=cache) for part in tokens.split([12, 1, 7], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), subject.model(tokens), rtol=1e-4, atol=1e-4)
