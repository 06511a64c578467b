"""Sequential calibration: inputs are those of the model as it has been changed so far, each layer once and in order."""

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

from core.algorithms.masks import prunable_weights
from core.calibration import input_rows, walk
from core.engine.recording import MemoryRecord
from core.errors import Cancelled
from core.models.anatomy import anatomy
from core.tasks.base import logits_of
from core.techniques.pruning.token_merging import TokenMerging
from tests.core.calibration.models import Batches, made, subject_of
from tests.core.fakes import context

NAMES = [
    "builtin:vit", "builtin:gpt", "builtin:encoder", "builtin:resnet", "plain",
    "llama", "opt", "gpt2", "bert", "vit", "deit",
]  # fmt: skip
CPU = torch.device("cpu")


def layers_of(model: nn.Module) -> list[str]:
    return [name.removesuffix(".weight") for name in prunable_weights(model)]


def walked(model: nn.Module, batches: Batches, layers: list[str] | None = None, record: MemoryRecord | None = None):
    return walk(model, batches, layers_of(model) if layers is None else layers, record or MemoryRecord(), CPU)


@torch.no_grad()
def rows_of_whole_model(model: nn.Module, batches: Batches, name: str) -> Tensor:
    """Every vector that enters a layer while the whole model answers, padding left out: [groups, n, d]."""
    found = []
    for batch in batches:
        caught: list[Tensor] = []
        layer = model.get_submodule(name)
        handle = layer.register_forward_pre_hook(lambda module, args, caught=caught: caught.append(args[0]))
        logits_of(model, batch)
        handle.remove()
        mask = batch.get("attention_mask")
        for x in caught:
            if mask is not None and x.dim() == 3:
                added = torch.ones(len(mask), x.shape[1] - mask.shape[1])
                x = x[torch.cat([added, mask], dim=1).bool()]
            found.append(input_rows(layer, x))
    return torch.cat(found, dim=1)


@torch.no_grad()
def damage(model: nn.Module, names: list[str]) -> None:
    for name in names:
        model.get_parameter(f"{name}.weight").mul_(torch.rand(()) + 0.5).add_(0.05)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_those_of_the_whole_model_as_it_has_been_changed_so_far(name, sequential):
    model, batches = made(name)
    visited, matters = [], False
    untouched = copy.deepcopy(model)
    for block in walked(model, batches):
        before = copy.deepcopy(model)
        for names, hessians in block.hessians(sequential=sequential):
            hessian = torch.stack(list(hessians))
            for layer in names:
                rows = rows_of_whole_model(model if sequential else before, batches, layer)
                expected = 2 / rows.shape[1] * rows.mT @ rows
                assert torch.allclose(hessian, expected, rtol=1e-4, atol=1e-5 * float(expected.max())), layer
                dense = rows_of_whole_model(untouched, batches, layer)
                matters |= not torch.allclose(dense, rows, rtol=1e-2)
            visited += names
            damage(model, names)
    assert sorted(visited) == sorted(layers_of(model))
    assert matters or name == "plain"


def test_merged_tokens_count_on_the_way_from_block_to_block():
    subject = subject_of("builtin:vit")
    TokenMerging(merged=4).apply(subject, context(subject))
    model, batches = subject.model, [subject.task.batch(torch.arange(2))]
    for block in walked(model, batches):
        for names, hessians in block.hessians():
            rows, hessian = rows_of_whole_model(model, batches, names[0]), torch.stack(list(hessians))
            assert torch.allclose(hessian, 2 / rows.shape[1] * rows.mT @ rows, rtol=1e-4, atol=1e-5), names


@pytest.mark.parametrize("name", NAMES)
def test_norms_are_the_roots_of_the_hessians_diagonal(name):
    model, batches = made(name)
    norms = {n[0]: norm for block in walked(model, batches) for n, norm in block.input_norms()}
    for block in walked(model, batches):
        for names, hessians in block.hessians():
            n_rows = rows_of_whole_model(model, batches, names[0]).shape[1]
            diagonal = torch.stack([hessian.diagonal() for hessian in hessians])
            assert torch.allclose(norms[names[0]].square() * 2 / n_rows, diagonal, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("builtin:resnet", "plain")])
def test_blocks_and_groups_are_those_of_the_anatomy(name):
    model, batches = made(name)
    blocks = list(walked(model, batches))
    known = anatomy(model).blocks
    assert [block.name for block in blocks if block.name in {b.name for b in known}] == [b.name for b in known]
    for block in blocks[: len(known)]:
        parts = next(b for b in known if b.name == block.name)
        assert {frozenset(group) for group in block.groups} == {frozenset(group) for group in parts.groups}


def test_layers_outside_of_blocks_have_their_turn_where_they_are_executed():
    model, batches = made("opt")
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    names = ["lm_head", "model.decoder.layers.1.fc1"]
    assert [block.name for block in walked(model, batches, names)] == ["model.decoder.layers.1", "lm_head"]


def test_layers_of_a_plain_network_come_one_by_one_and_those_with_one_input_together():
    model, batches = made("builtin:resnet")
    groups = [block.groups for block in walked(model, batches)]
    assert groups[0] == [["conv"]]
    assert [["blocks.1.conv1"]] in groups  # its shortcut has another kernel, so its vectors are others
    assert [["blocks.1.shortcut.0"]] in groups
    assert len(groups) == len(layers_of(model))


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
        self.expert = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        y = self.a(x) + self.b(x)
        x.relu_()
        return y + self.c(x)


def test_what_was_changed_in_place_is_another_input():
    model = Twins()
    groups = [block.groups for block in walked(model, [{"x": torch.randn(4, 8)}])]
    assert groups == [[["a", "b"]], [["c"]], [["expert"]]]


def test_a_layer_that_no_example_reaches_is_left_out_with_a_warning():
    record = MemoryRecord()
    found = [
        names for block in walked(Twins(), [{"x": torch.randn(4, 8)}], record=record) for names, _ in block.hessians()
    ]
    assert ["expert"] not in found
    assert record.events == [("warning", "no calibration example reaches expert: left unchanged")]


def test_blocks_that_are_no_chain_are_walked_with_the_whole_model():
    model, batches = made("builtin:gpt")
    last = model.blocks[2]
    last.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))  # is not what the block before gave
    blocks = list(walked(model, batches))
    assert [block.name for block in blocks][:2] == ["blocks.0.attention.q", "blocks.0.attention.o"]
    norms = norms_of(model, batches)
    rows = rows_of_whole_model(model, batches, "blocks.2.ffn.down")
    assert torch.allclose(norms["blocks.2.ffn.down"], rows.square().sum(1).sqrt(), rtol=1e-4)


def norms_of(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    return {names[0]: norms for block in walked(model, batches) for names, norms in block.input_norms()}


def test_models_that_would_keep_a_cache_do_not_while_they_are_walked():
    model, batches = made("llama")
    without = norms_of(model, batches)
    model.config.use_cache = True
    kept = norms_of(model, batches)
    assert model.config.use_cache
    assert all(torch.equal(norms, kept[name]) for name, norms in without.items())


def test_outputs_are_those_of_the_block_as_it_is_now():
    model, batches = made("llama")
    for block in walked(model, batches):
        damage(model, [name for group in block.groups for name in group])
        module, outputs = model.get_submodule(block.name), []
        handle = module.register_forward_hook(lambda m, args, output, outputs=outputs: outputs.append(output))
        with torch.no_grad():
            for batch in batches:
                logits_of(model, batch)
        handle.remove()
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(block.outputs(), outputs, strict=True))


def test_long_texts_are_taken_in_small_batches(monkeypatch):
    model, batches = made("builtin:encoder")
    whole = norms_of(model, batches)
    monkeypatch.setattr("core.calibration.sequential.MAX_TOKENS", 12)
    sizes: list[int] = []
    model.blocks[0].register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    assert all(torch.allclose(norms, whole[name]) for name, norms in norms_of(model, batches).items())
    assert set(sizes) == {1}


class Cancelling(MemoryRecord):
    def progress(self, fraction: float, text: str) -> None:
        if text == "blocks.1":
            raise Cancelled


def test_a_cancelled_walk_leaves_the_model_as_it_was():
    model, batches = made("builtin:gpt")
    model.train()
    expected = logits_of(model, batches[0])
    with pytest.raises(Cancelled):
        [block for block in walked(model, batches, record=Cancelling()) for _ in block.hessians()]
    assert torch.equal(logits_of(model, batches[0]), expected)
    assert model.training
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.modules())


def test_no_more_hidden_states_are_kept_at_the_last_block_than_at_the_first():
    model, batches = made("builtin:gpt")
    alive = []
    for _ in walked(model, batches):
        tensors = (o for o in gc.get_objects() if issubclass(type(o), Tensor))
        alive.append(sum(tensor.shape == (2, 12, 16) for tensor in tensors))
    assert alive[0] >= len(batches)
    assert alive[-1] <= alive[0]


CHAINS = [name for name in NAMES if name not in ("builtin:resnet", "plain")]


@pytest.mark.parametrize("name", CHAINS)
def test_targets_are_outputs_of_the_unchanged_model_and_calls_those_of_the_changed_one(name):
    model, batches = made(name)
    untouched = copy.deepcopy(model)
    for block in walk(model, batches, layers_of(model), MemoryRecord(), CPU, targets=True):
        if not block.is_block:
            continue
        for index, batch in enumerate(batches):
            before, given = entering_and_leaving(untouched, batch, block.name)
            now, _ = entering_and_leaving(model, batch, block.name)
            assert torch.allclose(block.targets[index], given, atol=1e-5)
            assert torch.allclose(block.call(index)[0][0], now, atol=1e-5)
            assert torch.allclose(block.call(index, original=True)[0][0], before, atol=1e-5)
        damage(model, [name for group in block.groups for name in group])


@torch.no_grad()
def entering_and_leaving(model: nn.Module, batch: dict[str, Tensor], block: str) -> tuple[Tensor, Tensor]:
    caught: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        caught.append((args[0], output[0] if isinstance(output, tuple) else output))

    handle = model.get_submodule(block).register_forward_hook(note)
    logits_of(model, batch)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize("name", ["builtin:gpt", "llama", "bert", "vit"])
def test_gradients_by_outputs_are_those_of_the_unchanged_model(name):
    model, batches = made(name)
    untouched = copy.deepcopy(model)

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return (logits * torch.linspace(-1, 1, logits.shape[-1])).sum()

    for block in walk(model, batches, layers_of(model), MemoryRecord(), CPU, targets=True):
        if not block.is_block:
            continue
        outputs: list[Tensor] = []

        def keep(module: nn.Module, args: tuple, output: Tensor | tuple, outputs: list = outputs) -> None:
            outputs.append(output[0] if isinstance(output, tuple) else output)

        handle = untouched.get_submodule(block.name).register_forward_hook(keep)
        total = loss(logits_of(untouched, batches[1]), batches[1])
        handle.remove()
        (expected,) = torch.autograd.grad(total, outputs[0])
        found = block.gradient(1, loss)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
        damage(model, [name for group in block.groups for name in group])


def test_batches_have_the_size_asked_for():
    model, batches = made("builtin:gpt")
    blocks = list(walk(model, batches, layers_of(model), MemoryRecord(), CPU, batch_size=1, targets=True))
    assert all(len(block.batches) == 6 for block in blocks)
    assert {len(target) for target in blocks[0].targets} == {1}
