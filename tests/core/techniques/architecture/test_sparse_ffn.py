"""Sparse FF as a step: every feed-forward network swapped, trained, packed, counted; refused where it cannot be."""

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure import compute
from core.models.anatomy import prunable
from core.nn.ffn.sparse_ffn import SparseFfn as SparseFfnModule
from core.techniques.architecture.sparse_ffn import SparseFfnTechnique
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of


def modules(subject) -> list[SparseFfnModule]:
    return [m for m in subject.model.modules() if isinstance(m, SparseFfnModule)]


def test_every_feed_forward_network_is_swapped_and_reported():
    subject, _ = subject_of()
    SparseFfnTechnique(block_size=16).apply(subject, context(subject))
    assert [(m.dim, m.hidden, m.n_blocks, m.rank) for m in modules(subject)] == [(32, 128, 8, 8)] * 2
    expected = [{"name": f"blocks.{i}.ffn", "hidden": 128, "computed": 8, "rank": 8} for i in range(2)]
    assert subject.details["layers"] == expected
    first, second = (m.up for m in modules(subject))
    assert not torch.equal(first, second)
    again, _ = subject_of()
    SparseFfnTechnique(block_size=16).apply(again, context(again))
    assert torch.equal(modules(again)[1].up, second)


def test_training_moves_every_weight_and_draws_curves():
    subject, _ = subject_of()
    SparseFfnTechnique(block_size=16, quant_prob=0.5).apply(subject, context(subject))
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters() if ".ffn." in name}
    record = MemoryRecord()
    Train(steps=6, batch_size=4, evaluations=0).apply(subject, context(subject, record))
    assert len(before) == 12
    assert all(not torch.equal(subject.model.get_parameter(name), old) for name, old in before.items())
    assert len(record.curves["0/units in use (%)"]) == 6
    assert all(0 < value <= 100 for _, value in record.curves["0/units in use (%)"])
    assert all(100 / 16 < value <= 100 for _, value in record.curves["0/largest share in a soft mask (%)"])


def test_a_token_meets_one_unit_of_each_block():
    subject, _ = subject_of()
    batch = subject.task.split("test").batch(torch.arange(1))
    dense = compute.count(subject.model, batch, per_token=True, decode=True)
    SparseFfnTechnique(block_size=32, rank=2).apply(subject, context(subject))
    sparse = compute.count(subject.model, batch, per_token=True, decode=True)
    saved = 2 * 2 * 32 * (128 - 4)  # of two layers, two matrices of 32 x 128 each
    controllers = 2 * 2 * (32 + 128)
    assert sparse.active_parameters == sparse.parameters - saved
    assert sparse.decode_macs == dense.decode_macs - saved + controllers
    assert sparse.macs == dense.macs + controllers  # many tokens at once: every unit is computed


def test_the_artifact_generates_the_same(tmp_path):
    subject, loaded = subject_of()
    SparseFfnTechnique(block_size=16).apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_models(tmp_path)["main"]
    prompt = torch.randint(0, 256, (1, 5))
    subject.model.eval()
    assert torch.equal(again.generate(prompt, 20, 0.0), subject.model.generate(prompt, 20, 0.0))


def test_trained_weights_are_not_dropped_silently():
    subject, _ = subject_of()
    record = MemoryRecord()
    SparseFfnTechnique(block_size=16).apply(subject, context(subject, record))
    assert record.events == []
    subject, _ = subject_of()
    subject.trained = True
    SparseFfnTechnique(block_size=16).apply(subject, context(subject, record))
    ((level, message),) = record.events
    assert level == "warning" and "feed-forward networks cannot be carried over" in message and not subject.trained


def test_blocks_must_divide_the_hidden_width():
    subject, _ = subject_of()
    with pytest.raises(SpecError, match=r"block_size = 48: does not divide the 128 hidden units .* Choose 16"):
        SparseFfnTechnique(block_size=48).check(subject)


def test_gated_networks_are_refused():
    subject, _ = subject_of(ffn="swiglu")
    with pytest.raises(SpecError, match=r"model.ffn = 'blocks.0.ffn': is gated"):
        SparseFfnTechnique().check(subject)


def test_later_steps_leave_its_weights_alone():
    subject, _ = subject_of()
    SparseFfnTechnique(block_size=16).apply(subject, context(subject))
    assert sorted(prunable(subject.model)) == sorted(
        f"blocks.{i}.attention.{part}" for i in range(2) for part in "qkvo"
    )
