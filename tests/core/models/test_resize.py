"""Layers cut smaller in place: masks go along, an artifact rebuilds them, strictly."""

import pytest
import torch
import transformers

from core import models, tasks
from core.artifacts import artifact
from core.artifacts.manifest import Manifest
from core.models.anatomy import anatomy, heads_of, prunable
from core.models.resize import changed_shapes, resize_, select_
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from tests.core.models.conftest import configs


@pytest.fixture
def vit():
    task = tasks.load(TaskSpec(source="builtin:digits"))
    spec = ModelSpec.model_validate({"source": "builtin:vit", "dim": 16, "depth": 2, "heads": 2})
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    return Subject({"main": loaded.module}, task, {"main": loaded.config}), loaded


def cut_ffn(subject: Subject) -> torch.Tensor:
    kept = torch.tensor([5, 0, 17, 63])
    ffn = "blocks.1.ffn."
    subject.constrain(ffn + "up.weight", mask=torch.rand(64, 16) > 0.4)
    for name, dim in (("up.weight", 0), ("up.bias", 0), ("down.weight", 1)):
        subject.shrink(ffn + name, dim, kept)
    return kept


def test_a_cut_feed_forward_network_computes_what_its_kept_units_did(vit):
    subject, _ = vit
    ffn, x = subject.model.blocks[1].ffn, torch.randn(3, 16)
    kept = torch.tensor([5, 0, 17, 63])
    gate = torch.zeros(64).index_fill(0, kept, 1.0)
    with torch.no_grad():
        expected = ffn.down(torch.nn.functional.gelu(ffn.up(x)) * gate)
        for name, dim in (("up.weight", 0), ("up.bias", 0), ("down.weight", 1)):
            select_(subject.model, f"blocks.1.ffn.{name}", dim, kept)
        torch.testing.assert_close(ffn(x), expected)
    assert (ffn.up.out_features, ffn.down.in_features) == (4, 4)


def test_masks_are_cut_with_their_weights(vit):
    subject, _ = vit
    whole = torch.Generator().manual_seed(1)
    mask = torch.rand(64, 16, generator=whole) > 0.4
    subject.constrain("blocks.0.ffn.up.weight", mask=mask)
    subject.shrink("blocks.0.ffn.up.weight", 0, torch.tensor([3, 9]))
    assert torch.equal(subject.mask("blocks.0.ffn.up.weight"), mask[[3, 9]])


def test_an_artifact_of_cut_layers_reloads_to_the_same_outputs_and_can_be_worked_on(vit, tmp_path):
    subject, loaded = vit
    cut_ffn(subject)
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    packed = artifact.load_models(tmp_path)["main"]
    images = subject.task.split("test").batch(torch.arange(8))["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(packed(images), subject.model(images))
        torch.testing.assert_close(again.model(images), subject.model(images))
    assert again.model.blocks[1].ffn.up.out_features == 4
    assert torch.equal(again.mask("blocks.1.ffn.up.weight"), subject.mask("blocks.1.ffn.up.weight"))
    manifest = Manifest.read(tmp_path)
    assert manifest.working.shapes["main"]["blocks.1.ffn.down.weight"] == [16, 4]


def test_only_what_differs_from_the_bare_model_is_named(vit):
    subject, loaded = vit
    bare = models.build(loaded.config)
    assert changed_shapes(subject.model, bare) == {}
    select_(subject.model, "norm.weight", 0, torch.arange(8))
    assert changed_shapes(subject.model, bare) == {"norm.weight": [8]}
    resize_(bare, {"norm.weight": [8]})
    assert bare.norm.normalized_shape == (8,)


def test_heads_are_counted_in_each_block(vit):
    subject, _ = vit
    known = anatomy(subject.model)
    for name in ("q", "k", "v"):
        subject.shrink(f"blocks.0.attention.{name}.weight", 0, torch.arange(8))
    assert heads_of(subject.model, known, known.blocks[0]) == (1, 1)
    assert heads_of(subject.model, known, known.blocks[1]) == (2, 2)


def test_what_shares_its_weights_goes_on_sharing_them():
    model = torch.nn.Module()
    model.embedding, model.head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False)
    model.head.weight = model.embedding.weight
    expected = model.head.weight[:, [3, 0]].detach().clone()
    select_(model, "embedding.weight", 1, torch.tensor([3, 0]))
    assert model.head.weight is model.embedding.weight and model.head.in_features == 2
    assert torch.equal(model.head.weight, expected)
    resize_(model, {"embedding.weight": [7, 3], "head.weight": [7, 3]})
    assert model.head.weight is model.embedding.weight and model.embedding.embedding_dim == 3


def test_attentions_of_transformers_say_how_many_heads_they_have_left():
    with torch.device("meta"):
        attention = transformers.OPTForCausalLM(configs()["opt"]).model.decoder.layers[0].self_attn
    model = torch.nn.ModuleDict({"attention": attention})
    select_(model, "attention.q_proj.weight", 0, torch.arange(16))
    assert attention.num_heads == 2
    resize_(model, {"attention.q_proj.weight": [8, 32]})
    assert attention.num_heads == 1


def test_layers_that_nothing_is_left_of_cannot_be_pruned_any_more(vit):
    subject, _ = vit
    cut = "blocks.0.ffn.up.weight"
    subject.shrink(cut, 0, torch.arange(0))
    assert "blocks.0.ffn.up" not in prunable(subject.model) and "blocks.1.ffn.up" in prunable(subject.model)


def test_a_bias_that_a_layer_was_made_without_is_named_and_made():
    bare, model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False)), torch.nn.Sequential(torch.nn.Linear(3, 2))
    assert changed_shapes(model, bare) == {"0.bias": [2]}
    resize_(bare, {"0.bias": [2]})
    bare.load_state_dict(model.state_dict())
    assert torch.equal(bare(torch.ones(1, 3)), model(torch.ones(1, 3)))
