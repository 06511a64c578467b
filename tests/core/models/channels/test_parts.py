"""The parts of real models whose inputs can be reordered, and that any order leaves their answers as they were."""

from types import MethodType

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import core.models
from core.algorithms.masks import prunable_weights
from core.models.anatomy import anatomy
from core.models.channels import ChannelPart, Network, find_parts, trace_channels
from core.models.channels.parts import FFN, OTHER, RESIDUAL, VALUES
from core.models.conv1d import convert_conv1d_
from core.spec.model import ModelSpec
from core.tasks.base import Kind
from tests.core.models.channels.test_trace import permute_all_, randomize_
from tests.core.models.conftest import CLASSES, Shape, configs

IMAGES = Shape("builtin:digits", Kind.IMAGE_CLASSIFICATION, n_classes=10, image_shape=(1, 8, 8))
TEXT = Shape("builtin:python-docs", Kind.LANGUAGE_MODELLING, length=12)
TEXTS = Shape("file:reviews.csv", Kind.TEXT_CLASSIFICATION, n_classes=3, length=12)
BUILTIN = {
    "vit": (ModelSpec(source="builtin:vit", dim=32, depth=2, heads=4), IMAGES),
    "vit, mean": (ModelSpec(source="builtin:vit", dim=32, depth=2, heads=4, pooling="mean", ffn="swiglu"), IMAGES),
    "gpt": (ModelSpec(source="builtin:gpt", dim=32, depth=2, heads=4, kv_heads=2), TEXT),
    "gpt, rotary": (ModelSpec(source="builtin:gpt", dim=32, depth=2, heads=4, positions="rotary", tied=False), TEXT),
    "gpt, window": (
        ModelSpec(source="builtin:gpt", dim=32, depth=2, heads=4, attention="sliding_window", window=4),
        TEXT,
    ),
    "encoder": (ModelSpec(source="builtin:encoder", dim=32, depth=2, heads=4), TEXTS),
}
ALL = frozenset({FFN, VALUES, RESIDUAL, OTHER})


def inputs_of(kind: Kind) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    if kind is Kind.IMAGE_CLASSIFICATION:
        return {"pixel_values": torch.randn(3, 1, 8, 8, dtype=torch.float64)}
    batch = {"input_ids": torch.randint(3, 60, (3, 12))}
    if kind is Kind.TEXT_CLASSIFICATION:
        batch["attention_mask"] = torch.ones(3, 12, dtype=torch.long)
        batch["attention_mask"][1, 8:] = 0
    return batch


def exact_norm(self, x):
    """LLaMA's norm computes in float32, where another order of summation shows."""
    return F.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)


def huggingface(family: str, attention: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config = configs()[family]
    config.use_cache = False
    config._attn_implementation = attention
    model = getattr(transformers, CLASSES[family])(config)
    convert_conv1d_(model)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = MethodType(exact_norm, module)
    kind = {"vit": Kind.IMAGE_CLASSIFICATION, "deit": Kind.IMAGE_CLASSIFICATION, "bert": Kind.TEXT_CLASSIFICATION}
    return randomize_(model), inputs_of(kind.get(family, Kind.LANGUAGE_MODELLING))


def builtin(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    spec, task = BUILTIN[name]
    model = core.models.load(spec, task, torch.Generator().manual_seed(0)).module
    return randomize_(model), inputs_of(task.kind)


def answer(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        output = model(**batch)
    return output if isinstance(output, torch.Tensor) else output.logits


def parts_of(model, batch, kinds=ALL, m=4) -> tuple[Network, list[ChannelPart], dict[str, str]]:
    network = trace_channels(model, lambda: answer(model, batch))
    return network, *find_parts(network, anatomy(model), list(prunable_weights(model)), m, kinds)


@torch.no_grad()
def assert_any_order_will_do(model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
    before, weights = answer(model, batch), {k: v.clone() for k, v in model.state_dict().items()}
    network, parts, left = parts_of(model, batch)
    assert not left
    for part in parts:
        order = torch.randperm(part.channels.size, generator=torch.Generator().manual_seed(1)).roll(1)
        matrix = part.matrix(network.tensors)
        part.channels.permute_({name: [tensor] for name, tensor in network.tensors.items()}, order)
        assert torch.equal(part.matrix(network.tensors), matrix[:, order])
    assert (answer(model, batch) - before).abs().max() < 1e-10 * before.abs().max().clamp(min=1)
    searched = {layer for part in parts for layer in part.layers}
    assert searched == {name.removesuffix(".weight") for name in prunable_weights(model)}
    for name in searched:
        assert not torch.equal(model.get_submodule(name).weight, weights[f"{name}.weight"])
    permute_all_(network)  # also what no layer is searched for: the channels of queries and keys
    assert (answer(model, batch) - before).abs().max() < 1e-10 * before.abs().max().clamp(min=1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", CLASSES)
def test_any_order_leaves_the_answers_of_a_hugging_face_model(family, attention):
    assert_any_order_will_do(*huggingface(family, attention))


@pytest.mark.parametrize("name", BUILTIN)
def test_any_order_leaves_the_answers_of_a_built_in_transformer(name):
    assert_any_order_will_do(*builtin(name))


@pytest.mark.parametrize("family", CLASSES)
def test_parts_of_a_transformer_are_its_units_its_heads_values_and_one_stream(family):
    model, batch = huggingface(family, "sdpa")
    _, parts, _ = parts_of(model, batch)
    known = anatomy(model)
    layers = {kind: [part.layers for part in parts if part.kind == kind] for kind in (FFN, VALUES, RESIDUAL)}
    assert layers[FFN] == [[block.down] for block in known.blocks]
    assert layers[VALUES] == [[block.o] for block in known.blocks for _ in range(known.kv_heads)]
    (stream,) = layers[RESIDUAL]
    reading = {name for block in known.blocks for name in (block.q, block.k, block.v, block.gate, block.up) if name}
    assert reading <= set(stream)
    heads = [part for part in parts if part.kind == VALUES]
    assert all(part.channels.size == known.head_dim for part in heads)
    shared = known.heads // known.kv_heads
    assert all(len(part.consumers[0].places) == shared for part in heads)


def test_values_of_a_fused_projection_are_its_last_third():
    model, batch = huggingface("gpt2", "sdpa")
    _, parts, _ = parts_of(model, batch)
    first = next(part for part in parts if part.kind == VALUES)
    (rows,) = first.channels.at("transformer.h.0.attn.c_attn.weight", 0)
    assert torch.equal(rows.places, torch.arange(64, 72)[None])
    assert {slot.name for slot in first.channels.slots} == {
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.attn.c_attn.bias",
        "transformer.h.0.attn.c_proj.weight",
    }


def test_queries_that_share_a_value_are_searched_together():
    model, batch = huggingface("llama", "sdpa")
    network, parts, _ = parts_of(model, batch)
    second = [part for part in parts if part.kind == VALUES][1]
    o = model.model.layers[0].self_attn.o_proj.weight
    expected = torch.cat([o[:, 16:24, None], o[:, 24:32, None]], dim=2).movedim(2, 1).flatten(0, 1)
    assert torch.equal(second.matrix(network.tensors), expected)


def test_parts_that_are_off_and_channels_that_m_does_not_divide_are_said():
    model, batch = huggingface("llama", "sdpa")
    _, parts, left = parts_of(model, batch, kinds=frozenset({FFN, VALUES, OTHER}), m=16)
    assert {part.kind for part in parts} == {FFN}
    assert left["model.layers.0.self_attn.q_proj"] == "residual is off"
    assert left["model.layers.0.self_attn.o_proj"] == "16 does not divide their 8 channels"
    assert "model.layers.0.mlp.down_proj" not in left
    _, parts, left = parts_of(model, batch, kinds=frozenset({VALUES}), m=8)
    assert not parts and left["model.layers.0.self_attn.o_proj"] == "they are one group of 8"
    assert left["model.layers.0.mlp.down_proj"] == "ffn is off"


class Plain(nn.Module):
    """Two layers of a plain network, and how the second reads the first."""

    def __init__(self, read, first: nn.Module, second: nn.Module):
        super().__init__()
        self.read, self.first, self.second = read, first, second

    def forward(self, x):
        return self.second(self.read(self.first(x)))


def reason_of(model: nn.Module, x: torch.Tensor) -> str:
    network = trace_channels(model.eval(), lambda: model(x))
    parts, left = find_parts(network, anatomy(model), ["second.weight"], 4, ALL)
    assert not parts
    return left["second"]


def test_channels_whose_order_no_group_depends_on_are_left_alone():
    model = Plain(lambda x: x.flatten(1), nn.Conv2d(3, 8, 1), nn.Linear(32, 2))
    assert reason_of(model, torch.randn(2, 3, 2, 2)) == "every group of 4 inputs is of one channel"


def test_channels_that_lie_scattered_over_groups_are_left_alone():
    model = Plain(lambda x: x.flatten(1), nn.Conv2d(3, 8, 1), nn.Linear(16, 2))
    assert reason_of(model, torch.randn(2, 3, 1, 2)) == "they do not lie side by side in second"


def test_layers_whose_inputs_m_does_not_divide_are_left_alone():
    read = lambda x: torch.cat((x, x.sum(1, keepdim=True), x.mean(1, keepdim=True)), 1)  # noqa: E731
    model = Plain(read, nn.Linear(3, 8), nn.Linear(10, 2))
    assert reason_of(model, torch.randn(2, 3)) == "4 does not divide their 10 channels"


def test_values_that_a_shared_norm_scales_stay_one_part():
    model, batch = builtin("vit")
    attention = model.blocks[0].attention
    attention.v = nn.Sequential(attention.v, nn.Unflatten(2, (4, 8)), nn.RMSNorm(8), nn.Flatten(2)).double()
    _, parts, _ = parts_of(model, batch)
    (first, *others) = [part for part in parts if part.layers in (["blocks.0.attention.o"], ["blocks.1.attention.o"])]
    assert len(others) == 4 and {slot.name for slot in first.channels.slots} >= {"blocks.0.attention.v.2.weight"}
    assert torch.equal(first.consumers[0].places, torch.arange(32).view(4, 8))


class Fused(nn.Module):
    """An attention whose queries, keys and values come from one linear by a view, so that they share their order."""

    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.c_attn(x).view(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FusedBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2, self.attn = nn.LayerNorm(16), nn.LayerNorm(16), Fused()
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(16, 32), "c_proj": nn.Linear(32, 16)})

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](self.mlp["c_fc"](self.ln_2(x)).relu())


def test_values_that_share_their_order_with_queries_stay_one_part():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch_embedding, self.h, self.head = nn.Linear(16, 16), nn.ModuleList([FusedBlock()]), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(self.h[0](self.patch_embedding(x)))

    model = randomize_(Model())
    assert anatomy(model).layout == "gpt2"
    batch = {"x": torch.randn(2, 5, 16, dtype=torch.float64)}
    _, parts, _ = parts_of(model, batch)
    (values,) = [part for part in parts if part.kind == VALUES]
    assert {len(slot.places) for slot in values.channels.slots} == {2, 6}
    assert_any_order_will_do(model, batch)
