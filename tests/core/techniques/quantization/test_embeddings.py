"""include_embeddings: embeddings of tokens are packed, and a head that shares their weights is packed once."""

import pytest
import torch
from torch import nn

from core.artifacts import artifact
from core.errors import SpecError
from core.integrity import PACKED
from core.measure import size
from core.measure.compute import count_weights
from core.measure.reach import Snapshot
from core.models.anatomy import anatomy, token_tables
from core.nn.integer_linear import IntegerLinear
from core.nn.packed_embedding import PackedEmbedding
from core.tasks.base import logits_of
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.number_format import NumberFormats
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.pruning.families import LENGTH, VOCABULARY, loaded, subject_of

TABLES = {
    "builtin gpt": "embedding",
    "builtin encoder": "embedding",
    "llama": "model.embed_tokens",
    "opt": "model.decoder.embed_tokens",
    "gpt2": "transformer.wte",
    "bert": "bert.embeddings.word_embeddings",
    "mixtral": "model.embed_tokens",
}
HEADS = {"builtin gpt": "head", "gpt2": "lm_head", "opt": "lm_head", "llama": "lm_head"}
TIED = {"llama": {"tie_word_embeddings": True}}  # the others are tied anyway
QUANTIZERS = {
    "rtn": Rtn(bits=4, granularity="group", group_size=8, symmetric=False, include_embeddings=True),
    "number_format": NumberFormats(format="nvfp4", include_embeddings=True),
    "dynamic_int8": DynamicInt8(include_embeddings=True),
}


def quantized(subject, technique):
    technique.check(subject)
    technique.apply(subject, context(subject))
    return subject


def outputs(model, subject):
    with torch.inference_mode():
        return logits_of(model, artifact.probe_batch(subject.task))


@pytest.mark.parametrize("family", TABLES)
def test_tables_of_tokens_are_packed_and_those_of_positions_stay(family):
    subject = subject_of(family, depth=1)
    assert token_tables(subject.model) == [TABLES[family]]
    before = {name for name, m in subject.model.named_modules() if isinstance(m, nn.Embedding)}
    quantized(subject, Rtn(bits=8, include_embeddings=True))
    after = {name for name, m in subject.model.named_modules() if isinstance(m, nn.Embedding)}
    assert before - after == {TABLES[family]}
    assert isinstance(subject.model.get_submodule(TABLES[family]), PackedEmbedding)
    assert subject.details["layers"][0]["name"] == TABLES[family]


@pytest.mark.parametrize("family", HEADS)
def test_a_tied_head_multiplies_by_the_table_itself(family):
    subject = subject_of(family, depth=1, **TIED.get(family, {}))
    weight = subject.model.get_submodule(HEADS[family]).weight.detach().clone()
    quantized(subject, Rtn(bits=8, include_embeddings=True))
    table = subject.model.get_submodule(TABLES[family]).table
    assert subject.model.get_submodule(HEADS[family]) is table
    assert torch.allclose(table.weight(), weight, atol=0.01 * float(weight.abs().max()))
    assert anatomy(subject.model).outputs == [HEADS[family]]


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_tied_artifact_stores_the_table_once_and_reloads_equal(family, name, tmp_path):
    subject = subject_of(family, depth=1, **TIED.get(family, {}))
    quantized(subject, QUANTIZERS[name])
    expected = outputs(subject.model, subject)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_models(tmp_path)["main"]
    assert again.get_submodule(HEADS[family]) is again.get_submodule(TABLES[family]).table
    assert torch.equal(outputs(again, subject), expected)
    unique = {t.untyped_storage().data_ptr(): t.nbytes for t in again.state_dict().values()}
    assert size.tensor_payload(tmp_path / PACKED) == sum(unique.values())
    working = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert torch.equal(outputs(working.model, subject), expected)


@pytest.mark.parametrize("family", ["llama", "bert", "mixtral"])
def test_an_untied_artifact_reloads_equal(family, tmp_path):
    subject = subject_of(family, depth=1)
    quantized(subject, QUANTIZERS["rtn"])
    head = [n for n in anatomy(subject.model).outputs if isinstance(subject.model.get_submodule(n), IntegerLinear)]
    assert head == []  # include_head was not asked for
    expected = outputs(subject.model, subject)
    artifact.save(subject, tmp_path, loaded(subject))
    assert torch.equal(outputs(artifact.load_models(tmp_path)["main"], subject), expected)


def test_tied_weights_count_once():
    subject = subject_of("builtin gpt", depth=1)
    before = count_weights(subject.model)
    snapshot = Snapshot(subject)
    quantized(subject, Rtn(bits=8, include_embeddings=True))
    after = count_weights(subject.model)
    assert after.parameters == before.parameters
    assert after.bits == pytest.approx(8.0)  # every matrix is packed
    reached = snapshot.compare()
    assert reached["parameters"] == before.parameters
    assert not [row for row in reached["missed"] if "embedding" in row["name"] or "head" in row["name"]]
    assert Snapshot(subject).compare()["parameters"] == before.parameters


def test_a_tied_head_asks_for_the_embeddings_too():
    subject = subject_of("builtin gpt", depth=1)
    with pytest.raises(SpecError) as raised:
        Rtn(include_head=True).check(subject)
    assert "include_embeddings: true" in raised.value.problems[0].remedy
    quantized(subject, Rtn(include_head=True, include_embeddings=True))
    assert isinstance(subject.model.head, IntegerLinear)


def test_a_model_without_tokens_is_refused():
    with pytest.raises(SpecError, match="needs an embedding of tokens"):
        Rtn(include_embeddings=True).check(subject_of("vit", depth=1))


def test_a_tied_head_with_a_bias_is_refused():
    subject = subject_of("builtin gpt", depth=1)
    subject.model.head.bias = nn.Parameter(torch.zeros(VOCABULARY))
    with pytest.raises(SpecError, match="a bias of its own"):
        Rtn(include_embeddings=True).check(subject)


def test_a_packed_embedding_can_be_skipped():
    subject = quantized(subject_of("llama", depth=1), Rtn(include_embeddings=True, skip=["*embed_tokens"]))
    assert type(subject.model.get_submodule("model.embed_tokens")) is nn.Embedding


@pytest.mark.parametrize("family", ["builtin gpt", "gpt2", "llama", "opt"])
def test_a_model_with_a_packed_tied_table_generates(family):
    from core.runtimes.decode import decoder_of

    subject = quantized(subject_of(family, depth=1, **TIED.get(family, {})), Rtn(bits=8, include_embeddings=True))
    tokens = torch.randint(4, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    decoder = decoder_of(subject.model)
    with torch.inference_mode():
        decoder.prefill({"input_ids": tokens[:, :-2]}, 2)
        decoder.step()
    assert decoder.token.shape[0] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_a_16_bit_model_are_in_its_dtype(dtype):
    subject = subject_of("llama", depth=1, dtype=dtype)
    quantized(subject, Rtn(bits=4, include_embeddings=True))
    assert subject.model.get_submodule("model.embed_tokens")(torch.tensor([1])).dtype == dtype
    assert subject.dtype == dtype
