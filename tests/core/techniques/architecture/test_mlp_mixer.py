"""MLP-Mixer as a step: attentions swapped, trained, saved, counted; refused where a model cannot have it."""

import copy

import pytest
import torch

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure.compute import count
from core.nn.mixer import TokenMixing
from core.nn.transformer import Transformer
from core.techniques.architecture.gmlp import Gmlp
from core.techniques.architecture.mlp_mixer import MlpMixer
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.architecture.fixed_lengths import (
    SIZES,
    check_artifact,
    check_learning,
    check_texts_in_any_batch,
    vit,
)
from tests.core.techniques.architecture.small_gpt import subject_of


@pytest.mark.parametrize(("pooling", "tokens"), [("cls", 17), ("mean", 16)])
def test_it_takes_the_place_of_attention_for_as_many_tokens_as_the_model_has(pooling, tokens):
    subject, _ = vit(pooling=pooling, patch=2)
    ffns = [block.ffn for block in subject.model.blocks]
    subject.trained, record = True, MemoryRecord()
    MlpMixer().check(subject)
    MlpMixer().apply(subject, context(subject, record))
    mixings = [block.attention for block in subject.model.blocks]
    assert [(type(m), m.tokens, m.hidden) for m in mixings] == [(TokenMixing, tokens, 16)] * 2
    assert [block.ffn for block in subject.model.blocks] == ffns
    expected = [{"name": f"blocks.{i}.attention", "tokens": tokens, "hidden": 16} for i in range(2)]
    assert subject.details["layers"] == expected
    assert not subject.trained and "attentions cannot be carried over" in record.events[0][1]
    assert subject.model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert not torch.equal(mixings[0].up.weight, mixings[1].up.weight)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_of_any_length_are_classified_the_same_in_any_batch(pooling):
    check_texts_in_any_batch(MlpMixer(hidden=12), pooling)


def test_it_learns():
    check_learning(MlpMixer(), vit()[0])


@pytest.mark.parametrize("later", [None, Cast(), Rtn()])
def test_an_artifact_reloads_to_the_same_also_packed(later, tmp_path):
    check_artifact(MlpMixer(), later, vit(), tmp_path)


def test_products_over_tokens_are_counted():
    subject, _ = vit(patch=2)
    batch = {"pixel_values": torch.rand(1, 1, 8, 8)}
    full = copy.deepcopy(subject.model)
    MlpMixer(hidden=10).apply(subject, context(subject))
    attention = 4 * 17 * 32 * 32 + 2 * 17 * 17 * 32
    mixing = 2 * 17 * 10 * 32
    assert count(full, batch).macs - count(subject.model, batch).macs == 2 * (attention - mixing)


def test_models_that_predict_the_next_token_are_refused():
    subject, _ = subject_of()
    with pytest.raises(SpecError, match=r"model = 'Gpt': predicts the next token.*the step gmlp"):
        MlpMixer().check(subject)


def test_models_whose_number_of_tokens_is_unknown_are_refused():
    subject, _ = vit()
    subject.models["main"] = Transformer(outputs=3, ffn_dim=16, **SIZES)
    with pytest.raises(SpecError, match="does not state its maximum number of tokens"):
        MlpMixer().check(subject)


def test_blocks_that_are_changed_already_are_refused():
    subject, _ = vit()
    Gmlp().apply(subject, context(subject))
    with pytest.raises(SpecError, match=r"blocks\.0.*no longer\) a block"):
        MlpMixer().check(subject)


def test_label_says_what_was_chosen():
    assert [MlpMixer().label(), MlpMixer(hidden=9).label()] == ["", "hidden 9"]
