import pytest
import torch
from torch import nn

import core.models
from core.errors import SpecError
from core.models.anatomy import anatomy, prunable
from core.models.meta import empty_weights
from core.spec.model import ModelSpec
from tests.core.models.conftest import CLASSES, configs

LLAMA = "model.layers.1."
EXPECTED = {  # q, gate, up, down, last norm, head, tied, causal
    "llama": (
        "self_attn.q_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "model.norm",
        "lm_head",
        False,
        True,
    ),
    "opt": ("self_attn.q_proj", None, "fc1", "fc2", "model.decoder.final_layer_norm", "lm_head", True, True),
    "gpt2": ("attn.c_attn", None, "mlp.c_fc", "mlp.c_proj", "transformer.ln_f", "lm_head", True, True),
    "bert": ("attention.self.query", None, "intermediate.dense", "output.dense", None, "classifier", False, False),
}


def build(family):
    config = {
        "source": "hf",
        "auto_class": f"AutoModelFor{CLASSES[family].partition('For')[2]}",
        "config": {**configs()[family].to_dict(), "architectures": [CLASSES[family]]},
        "attention": "sdpa",
        "dtype": "float32",
    }
    config["auto_class"] = "AutoModelForCausalLM" if family == "gpt2" else config["auto_class"]
    with empty_weights():
        return core.models.build(config)


@pytest.mark.parametrize("family", EXPECTED)
def test_parts_of_known_families(family):
    q, gate, up, down, norm, head, tied, causal = EXPECTED[family]
    found = anatomy(build(family))
    block = found.blocks[1]
    prefix = f"{found.blocks_list}.1."
    full = {"q": q, "gate": gate, "up": up, "down": down}
    assert {key: getattr(block, key) for key in full} == {k: v and prefix + v for k, v in full.items()}
    assert (found.norm, found.head, found.tied, found.causal) == (norm, head, tied, causal)
    assert (len(found.blocks), found.heads, found.head_dim) == (2, 4, 8)
    assert found.kv_heads == (2 if family == "llama" else 4)
    assert block.pre_norm == (family != "bert")


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_parts_of_vision_transformers(family):
    model = build(family)
    found = anatomy(model)
    assert len(found.blocks) == 2 and found.head == "classifier" and not found.causal
    assert found.norm == f"{family}.layernorm"
    assert found.embeddings == [f"{family}.embeddings.patch_embeddings.projection"]
    assert not set(prunable(model, (nn.Linear, nn.Conv2d))) & {*found.embeddings, "classifier"}
    assert len(prunable(model)) == 12


@pytest.mark.parametrize("family", [*EXPECTED, "vit", "deit"])
def test_every_name_is_a_module_and_every_group_shares_its_input(family):
    model = build(family)
    found = anatomy(model)
    for block in found.blocks:
        linears = [model.get_submodule(name) for name in block.linears]
        assert all(type(linear) is nn.Linear for linear in linears) and len(set(linears)) == len(linears)
        for group in block.groups:
            assert len({model.get_submodule(name).in_features for name in group}) == 1
        for name in (block.attention, block.norm1, block.norm2):
            assert model.get_submodule(name) is not None
    inside = {name for block in found.blocks for name in block.linears}
    assert inside <= set(found.linears)
    assert inside <= set(prunable(model)) and not {found.head, *found.embeddings} & set(prunable(model))


@pytest.mark.parametrize("settings", [{}, {"ffn": "swiglu"}, {"attention": "sliding_window", "window": 4}])
def test_parts_of_the_reference_transformer(settings, language_task):
    spec = ModelSpec(source="builtin:gpt", dim=32, depth=3, heads=4, kv_heads=2, **settings)
    with empty_weights():
        model = core.models.build(core.models.describe(spec, language_task).config)
    found = anatomy(model)
    assert (len(found.blocks), found.heads, found.kv_heads, found.head_dim) == (3, 4, 2, 8)
    assert found.causal and found.tied and (found.norm, found.head) == ("norm", "head")
    gate = ["blocks.2.ffn.gate"] if settings.get("ffn") == "swiglu" else []
    attention = [f"blocks.2.attention.{name}" for name in "qkv"]
    assert found.blocks[2].groups == [
        attention,
        ["blocks.2.attention.o"],
        [*gate, "blocks.2.ffn.up"],
        ["blocks.2.ffn.down"],
    ]
    assert "head" not in prunable(model) and len(prunable(model)) == 3 * (6 + len(gate))


def test_names_outlive_the_replacement_of_a_linear(language_task, generator):
    spec = ModelSpec(source="builtin:gpt", dim=32, depth=2, heads=4)
    model = core.models.load(spec, language_task, generator).module
    model.set_submodule("blocks.0.ffn.up", nn.Identity())
    found = anatomy(model)
    assert len(found.blocks) == 2 and "blocks.0.ffn.up" not in found.linears


def test_linear_that_only_shares_memory_with_an_embedding_is_not_prunable():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.body = nn.Linear(4, 4)
            self.out = nn.Linear(4, 7, bias=False)
            self.out.weight = nn.Parameter(self.embedding.weight.detach())

    assert prunable(Model()) == ["body"]


def test_unknown_architecture_has_linears_and_refuses_the_rest():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    found = anatomy(model)
    assert found.blocks == [] and found.linears == ["0", "2"] and prunable(model) == ["0", "2"]
    with pytest.raises(SpecError) as caught:
        found.require("blocks")
    problem = caught.value.problems[0]
    assert problem.field == "model.source" and "Sequential" in problem.message and "blocks" in problem.message


def test_fused_projections_are_said():
    with pytest.raises(SpecError, match="one linear layer for q, k and v"):
        anatomy(build("gpt2")).require("separate q, k, v")
    anatomy(build("llama")).require("separate q, k, v")
    anatomy(build("gpt2")).require("blocks")


def test_anatomy_works_on_the_meta_device(image_task):
    with torch.device("meta"):
        model = core.models.build(core.models.describe(ModelSpec(source="builtin:vit"), image_task).config)
    assert len(anatomy(model).blocks) == 6 and anatomy(model).embeddings == ["patch_embedding"]


def test_a_part_that_a_step_swapped_away_is_named_as_such_and_the_others_stay_known(image_task):
    with empty_weights():
        model = core.models.build(core.models.describe(ModelSpec(source="builtin:vit"), image_task).config)
    model.blocks[0].ffn = nn.Identity()
    found = anatomy(model)
    with pytest.raises(SpecError, match="by an earlier step: its blocks' parts are not known to Slimboard"):
        found.require("blocks' parts")
    names = [f"blocks.{index}" for index in range(6)]
    assert found.chain == names == list(found.attentions) and list(found.feeds) == names[1:]
    assert found.attentions["blocks.5"].o == "blocks.5.attention.o" and found.feeds["blocks.5"].gate is None
    assert (found.blocks, found.layout, found.blocks_list, found.heads) == ([], None, "blocks", 3)
    for block in model.blocks:
        block.attention = nn.Identity()
    with pytest.raises(SpecError, match="by an earlier step: its heads are not known to Slimboard"):
        anatomy(model).require("heads")
