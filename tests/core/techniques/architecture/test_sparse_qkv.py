"""Sparse QKV as a step: every attention swapped, generation with its cache; refused where it cannot be."""

import pytest
import torch

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.attention.sparse_qkv import SparseQkvAttention
from core.techniques.architecture.sparse_ffn import SparseFfnTechnique
from core.techniques.architecture.sparse_loss import SparseLoss
from core.techniques.architecture.sparse_qkv import SparseQkv
from core.techniques.pruning.token_merging import TokenMerging
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of


def modules(subject) -> list[SparseQkvAttention]:
    return [m for m in subject.model.modules() if isinstance(m, SparseQkvAttention)]


@pytest.mark.parametrize(("asked", "n_modules"), [(None, 4), (8, 8)])
def test_every_attention_is_swapped_and_reported(asked, n_modules):
    subject, _ = subject_of(positions="rotary")
    SparseQkv(n_modules=asked).apply(subject, context(subject))
    assert [(m.dim, m.heads, m.n_modules) for m in modules(subject)] == [(32, 4, n_modules)] * 2
    assert all(m.rotary.base == 10000.0 for m in modules(subject))
    channels = 32 // n_modules
    weights = 32 * n_modules + 32 * channels + 32 + 21 * channels**2 + 3 * channels
    row = {"modules": n_modules, "weights_before": 4 * (32 * 32 + 32), "weights": weights}
    assert subject.details["layers"] == [{"name": f"blocks.{i}.attention", **row} for i in range(2)]
    again, _ = subject_of(positions="rotary")
    SparseQkv(n_modules=asked).apply(again, context(again))
    assert torch.equal(modules(again)[1].qk.weight, modules(subject)[1].qk.weight)
    assert not torch.equal(modules(subject)[0].qk.weight, modules(subject)[1].qk.weight)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_all_three_parts_trained_generate_the_same_with_and_without_a_cache(positions):
    subject, _ = subject_of(positions=positions)
    for step in (SparseFfnTechnique(block_size=16), SparseQkv(), SparseLoss()):
        step.check(subject)
        step.apply(subject, context(subject))
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    Train(steps=4, batch_size=4, evaluations=0).apply(subject, context(subject))
    assert all(not torch.equal(p, before[name]) for name, p in subject.model.named_parameters())
    model = subject.model.double()
    tokens = torch.randint(0, 256, (2, 32))
    full = model(tokens)
    for pieces in ([1] * 32, [20] + [1] * 12, [31, 1], [3, 29]):
        cache = model.make_cache(32)
        parts = [model(part, cache=cache) for part in tokens.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=0, atol=1e-10)


def test_trained_weights_are_not_dropped_silently():
    subject, _ = subject_of()
    subject.trained, record = True, MemoryRecord()
    SparseQkv().apply(subject, context(subject, record))
    assert [level for level, _ in record.events] == ["warning"]


def test_bidirectional_models_are_refused():
    subject, _ = subject_of(source="builtin:vit", task="builtin:digits", length=None)
    with pytest.raises(SpecError, match=r"model.source = 'blocks.0.attention': is bidirectional"):
        SparseQkv().check(subject)


def test_blocks_that_pass_on_fewer_tokens_are_refused():
    subject, _ = subject_of(source="builtin:vit", task="builtin:digits", length=None)
    TokenMerging().apply(subject, context(subject))
    with pytest.raises(SpecError, match=r"model.source = 'blocks.0': reduces tokens"):
        SparseQkv().check(subject)


def test_fewer_heads_of_keys_are_refused():
    subject, _ = subject_of(kv_heads=2)
    with pytest.raises(SpecError, match=r"model.kv_heads = 2: has fewer key heads"):
        SparseQkv().check(subject)


@pytest.mark.parametrize("n_modules", [3, 64])
def test_modules_must_divide_the_width(n_modules):
    subject, _ = subject_of()
    with pytest.raises(SpecError, match=f"n_modules = {n_modules}: does not divide the width of 32 .* such as 4"):
        SparseQkv(n_modules=n_modules).check(subject)


def test_a_single_head_wants_a_number_of_modules():
    subject, _ = subject_of(heads=1)
    with pytest.raises(SpecError, match="n_modules = 1"):
        SparseQkv().check(subject)
    SparseQkv(n_modules=8).check(subject)
