"""gMLP as a step: blocks swapped, trained, saved, decoded; refused where a model cannot have it."""

import pytest
import torch

from core.errors import SpecError
from core.measure.compute import count
from core.nn.gmlp import GmlpBlock
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

both_models = pytest.mark.parametrize("make", [vit, subject_of], ids=["vit", "gpt"])


def test_whole_blocks_are_swapped_but_their_first_norm():
    subject, _ = subject_of()
    norms = [block.norm1 for block in subject.model.blocks]
    subject.trained = True
    Gmlp(ffn_ratio=3).apply(subject, context(subject))
    blocks = list(subject.model.blocks)
    made = [(type(b), b.hidden, b.tokens, b.causal) for b in blocks]
    assert made == [(GmlpBlock, 96, 32, True)] * 2
    assert [block.norm1 for block in blocks] == norms
    assert subject.details["layers"] == [{"name": f"blocks.{i}", "tokens": 32, "gated units": 48} for i in range(2)]
    assert not subject.trained
    subject, _ = vit()
    Gmlp().apply(subject, context(subject))
    assert not subject.model.blocks[0].causal


def test_the_cache_decodes_as_the_whole_text_at_once():
    subject, _ = subject_of()
    Gmlp().apply(subject, context(subject))
    torch.nn.init.normal_(subject.model.blocks[1].gate.spatial_weight)
    model = subject.model.double().eval()
    tokens = torch.randint(0, 256, (2, 32), generator=torch.Generator().manual_seed(1))
    cache = model.make_cache(32)
    pieces = [model(piece, cache=cache) for piece in tokens.split([20, 1, 1, 8, 2], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))
    assert model.generate(tokens[:, :20], 12, temperature=0).shape == (2, 32)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_of_any_length_are_classified_the_same_in_any_batch(pooling):
    check_texts_in_any_batch(Gmlp(ffn_ratio=2), pooling)


@both_models
def test_it_learns(make):
    check_learning(Gmlp(), make()[0])


@both_models
@pytest.mark.parametrize("later", [None, Cast(), Rtn()])
def test_an_artifact_reloads_to_the_same_also_packed(make, later, tmp_path):
    check_artifact(Gmlp(), later, make(), tmp_path)


def test_products_over_tokens_are_counted():
    subject, _ = subject_of()
    Gmlp().apply(subject, context(subject))
    counted = count(subject.model, {"input_ids": torch.zeros(1, 32, dtype=torch.long)}, per_token=True, decode=True)
    head = 32 * subject.model.head.out_features
    assert counted.macs == counted.decode_macs == 2 * (32 * 192 + 96 * 32 + 32 * 96) + head  # a row of W: 32 tokens


def test_models_whose_number_of_tokens_is_unknown_are_refused():
    subject, _ = vit()
    subject.models["main"] = Transformer(outputs=3, ffn_dim=16, **SIZES)
    with pytest.raises(SpecError, match="does not state its maximum number of tokens"):
        Gmlp().check(subject)


def test_blocks_that_are_changed_already_are_refused():
    subject, _ = vit()
    MlpMixer().apply(subject, context(subject))
    with pytest.raises(SpecError, match=r"blocks\.0.*no longer\) a block"):
        Gmlp().check(subject)


def test_label_says_what_was_chosen():
    assert [Gmlp().label(), Gmlp(ffn_ratio=4).label()] == ["", "width × 4"]
