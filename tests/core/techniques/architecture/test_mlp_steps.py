"""MLP-Mixer and gMLP as steps: swapped, trained, saved, decoded; refused where a model cannot have them."""

import copy

import pytest
import torch

from core import artifact
from core.errors import SpecError
from core.measure.compute import count
from core.models.encoder import Encoder
from core.models.vit import Vit
from core.nn.gmlp import GmlpBlock
from core.nn.mixer import TokenMixing
from core.nn.transformer import Transformer
from core.recording import MemoryRecord
from core.techniques.architecture.gmlp import Gmlp
from core.techniques.architecture.mlp_mixer import MlpMixer
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import context, plane_subject
from tests.core.techniques.architecture.small_gpt import subject_of

SIZES = {"dim": 8, "depth": 2, "heads": 2, "kv_heads": 2, "attention": "full", "attention_settings": {}, "ffn": "mlp"}


def vit(**changes: object):
    return subject_of(source="builtin:vit", task="builtin:digits", length=None, **changes)


def encoder(pooling: str = "mean"):
    """A subject whose model is a text classifier of at most 9 tokens."""
    subject = plane_subject()
    subject.models["main"] = Encoder(vocab_size=20, length=9, pooling=pooling, n_classes=3, ffn_dim=16, **SIZES)
    subject.models["main"].initialize_(torch.Generator().manual_seed(0))
    return subject


@pytest.mark.parametrize(("pooling", "tokens"), [("cls", 17), ("mean", 16)])
def test_the_mixer_takes_the_place_of_attention_for_as_many_tokens_as_the_model_has(pooling, tokens):
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
    assert not subject.trained and "attentions cannot carry over" in record.events[0][1]
    images = torch.rand(2, 1, 8, 8)
    assert subject.model(images).shape == (2, 10)
    assert not torch.equal(mixings[0].up.weight, mixings[1].up.weight)


@pytest.mark.parametrize("step", [MlpMixer(hidden=12), Gmlp(ffn_ratio=2)])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_of_any_length_are_classified_the_same_in_any_batch(step, pooling):
    subject = encoder(pooling)
    step.check(subject)
    step.apply(subject, context(subject))
    for parameter in subject.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    model = subject.model.double().eval()
    short, long = torch.randint(1, 20, (1, 4)), torch.randint(1, 20, (1, 9))
    both = torch.cat((torch.nn.functional.pad(short, (0, 5)), long))
    mask = (torch.arange(9) < torch.tensor([[4], [9]])).long()
    expected = torch.cat((model(short), model(long)))
    torch.testing.assert_close(model(both, mask), expected)


def test_gmlp_swaps_whole_blocks():
    subject, _ = subject_of()
    norms = [block.norm1 for block in subject.model.blocks]
    Gmlp(ffn_ratio=3).apply(subject, context(subject))
    blocks = list(subject.model.blocks)
    made = [(type(b), b.hidden, b.tokens, b.causal) for b in blocks]
    assert made == [(GmlpBlock, 96, 32, True)] * 2
    assert [block.norm1 for block in blocks] == norms
    assert subject.details["layers"] == [{"name": f"blocks.{i}", "tokens": 32, "gated units": 48} for i in range(2)]
    subject, _ = vit()
    Gmlp().apply(subject, context(subject))
    assert not subject.model.blocks[0].causal


def test_gmlp_decodes_as_the_whole_text_at_once():
    subject, _ = subject_of()
    Gmlp().apply(subject, context(subject))
    torch.nn.init.normal_(subject.model.blocks[1].gate.spatial_weight)
    model = subject.model.double().eval()
    tokens = torch.randint(0, 256, (2, 32), generator=torch.Generator().manual_seed(1))
    cache = model.make_cache(32)
    pieces = [model(piece, cache=cache) for piece in tokens.split([20, 1, 1, 8, 2], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))
    assert model.generate(tokens[:, :20], 12, temperature=0).shape == (2, 32)


@pytest.mark.parametrize(
    ("step", "make"),
    [(MlpMixer(), vit), (Gmlp(), vit), (Gmlp(), subject_of)],
    ids=["mixer, vit", "gmlp, vit", "gmlp, gpt"],
)
def test_it_learns(step, make):
    subject, _ = make()
    step.apply(subject, context(subject))
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    record = MemoryRecord()
    Train(steps=70, batch_size=16, evaluations=0, learning_rate=3e-3).apply(subject, context(subject, record))
    losses = [value for _, value in record.curves["0/loss"]]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.4
    assert all(not torch.equal(before[name], p) for name, p in subject.model.named_parameters())


@pytest.mark.parametrize("later", [None, Cast(), Rtn()])
@pytest.mark.parametrize(("step", "make"), [(MlpMixer(), vit), (Gmlp(), vit), (Gmlp(), subject_of)])
def test_an_artifact_reloads_to_the_same_also_packed(step, make, later, tmp_path):
    subject, loaded = make()
    step.apply(subject, context(subject))
    if later is not None:
        later.check(subject)
        later.apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    reloaded = artifact.load_models(tmp_path)["main"]
    batch = artifact.probe_batch(subject.task)
    batch = {key: value.to(subject.dtype) if value.is_floating_point() else value for key, value in batch.items()}
    with torch.inference_mode():
        torch.testing.assert_close(reloaded(**batch), subject.model.eval()(**batch), atol=1e-5, rtol=1e-5)


def test_products_over_tokens_are_counted():
    subject, _ = vit(patch=2)
    batch = {"pixel_values": torch.rand(1, 1, 8, 8)}
    full = copy.deepcopy(subject.model)
    MlpMixer(hidden=10).apply(subject, context(subject))
    attention = 4 * 17 * 32 * 32 + 2 * 17 * 17 * 32
    mixing = 2 * 17 * 10 * 32
    assert count(full, batch).macs - count(subject.model, batch).macs == 2 * (attention - mixing)
    subject, _ = subject_of()
    Gmlp().apply(subject, context(subject))
    counted = count(subject.model, {"input_ids": torch.zeros(1, 32, dtype=torch.long)}, per_token=True, decode=True)
    head = 32 * subject.model.head.out_features
    assert counted.macs == counted.decode_macs == 2 * (32 * 192 + 96 * 32 + 32 * 96) + head  # a row of W: 32 tokens


def test_the_mixer_is_refused_where_tokens_must_not_see_those_after_them():
    subject, _ = subject_of()
    with pytest.raises(SpecError, match=r"model = 'Gpt': predicts the next token.*the step gmlp"):
        MlpMixer().check(subject)


@pytest.mark.parametrize("step", [MlpMixer(), Gmlp()])
def test_models_whose_number_of_tokens_is_unknown_are_refused(step):
    subject, _ = vit()
    subject.models["main"] = Transformer(outputs=3, ffn_dim=16, **SIZES)
    with pytest.raises(SpecError, match="does not say how many tokens"):
        step.check(subject)


@pytest.mark.parametrize("step", [MlpMixer(), Gmlp()])
@pytest.mark.parametrize(("earlier", "reason"), [(Gmlp(), "no longer, a block"), (Cast(), "in torch.bfloat16")])
def test_blocks_that_are_changed_already_are_refused(step, earlier, reason):
    subject, _ = vit()
    earlier.apply(subject, context(subject))
    with pytest.raises(SpecError, match=f"blocks.0.*{reason}"):
        step.check(subject)


def test_a_vit_is_a_vit_still():
    subject, _ = vit()
    MlpMixer().apply(subject, context(subject))
    assert type(subject.model) is Vit


def test_labels_say_what_was_chosen():
    assert [MlpMixer().label(), MlpMixer(hidden=9).label()] == ["", "hidden 9"]
    assert [Gmlp().label(), Gmlp(ffn_ratio=4).label()] == ["", "width × 4"]
