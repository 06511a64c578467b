"""The sparse loss layer as a step: the head swapped and untied, what that does to size, refusals."""

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.integrity import PACKED
from core.measure.size import tensor_payload
from core.models.meta import tied_parameters
from core.nn.multiplicative import MultiplicativeLinear
from core.techniques.architecture.sparse_loss import SparseLoss
from tests.core.fakes import context
from tests.core.techniques.architecture.small_gpt import subject_of

OWN = 4 * 32 + 65 * 32  # gates, and a projection to 65 = ceil(257 / 4) tokens


def applied(record: MemoryRecord | None = None, **model):
    subject, loaded = subject_of(**model)
    SparseLoss().check(subject)
    SparseLoss().apply(subject, context(subject, record))
    return subject, loaded


def test_a_shared_head_is_untied_and_that_is_said():
    record = MemoryRecord()
    subject, _ = applied(record)
    assert isinstance(subject.model.head, MultiplicativeLinear) and subject.model.head.bias is None
    assert tied_parameters(subject.model) == []
    assert subject.model.embedding.weight.shape == (257, 32)
    assert subject.details["layers"] == [{"name": "head", "modules": 4, "weights": OWN, "added_to_model": OWN}]
    message = "the head no longer shares the embedding's weights: the model has 2,208 more parameters"
    assert record.events == [("info", message)]


def test_a_head_of_its_own_becomes_a_quarter():
    record = MemoryRecord()
    subject, _ = applied(record, tied=False)
    assert subject.details["layers"][0]["added_to_model"] == OWN - 257 * 32
    assert record.events == []


@pytest.mark.parametrize(("tied", "change"), [(True, OWN), (False, OWN - 257 * 32)])
def test_the_artifact_has_as_many_bytes_and_answers_the_same(tied, change, tmp_path):
    plain, loaded = subject_of(tied=tied)
    artifact.save(plain, tmp_path / "before", loaded)
    subject, loaded = applied(tied=tied)
    artifact.save(subject, tmp_path / "after", loaded)
    before, after = (tensor_payload(tmp_path / part / PACKED) for part in ("before", "after"))
    assert after - before == 4 * change
    again = artifact.load_models(tmp_path / "after")["main"]
    tokens = torch.randint(0, 256, (2, 7))
    torch.testing.assert_close(again(tokens), subject.model.eval()(tokens), rtol=0, atol=0)
    assert again(tokens).shape == (2, 7, 257)


def test_classifiers_are_refused():
    subject, _ = subject_of(source="builtin:vit", task="builtin:digits", length=None)
    with pytest.raises(SpecError, match="task = 'builtin:digits': is image classification"):
        SparseLoss().check(subject)


def test_it_is_refused_twice_and_beyond_the_vocabulary():
    subject, _ = subject_of(task="builtin:markov")
    subject.model.head = torch.nn.Linear(32, 6)
    with pytest.raises(SpecError, match="n_modules = 8: exceeds the 6 tokens"):
        SparseLoss(n_modules=8).check(subject)
    subject, _ = applied()
    with pytest.raises(SpecError, match="model = 'MultiplicativeLinear': is not a plain linear"):
        SparseLoss().check(subject)


def test_trained_weights_are_not_dropped_silently():
    subject, _ = subject_of(tied=False)
    subject.trained, record = True, MemoryRecord()
    SparseLoss().apply(subject, context(subject, record))
    assert [level for level, _ in record.events] == ["warning"]
