"""Sparse stages end to end: what is packed is what was masked, in few bytes, and later steps keep it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core import models
from core.algorithms.masks import prunable_weights
from core.artifacts.artifact import load_models, load_subject, save
from core.artifacts.manifest import Manifest
from core.artifacts.store import ArtifactStore
from core.engine.pipeline import execute
from core.engine.recording import MemoryRecord
from core.integrity import PACKED
from core.measure.size import tensor_payload
from core.measured import StageRecord
from core.nn.sparse_integer_linear import SparseDynamicInt8Linear, SparseQuantLinear
from core.nn.sparse_linear import SparseLinear
from core.spec.model import RunSpec
from core.tasks import load as load_task
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from tests.core.fakes import context

METHODS = [{"sr_ste": {"n": 2, "m": 4}}, {"distill_logits": {"teacher": "stage:0"}}]
RECIPE = [
    {"train": {"steps": 8, "batch_size": 32, "evaluations": 0, "methods": METHODS}},
    {"train": {"steps": 4, "batch_size": 32, "evaluations": 0}},
    {"rtn": {"bits": 8}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, RunSpec, list[StageRecord], MemoryRecord]:
    """SR-STE with a teacher, training under its mask, 8-bit codes."""
    folder, record = tmp_path_factory.mktemp("sparse"), MemoryRecord()
    spec = RunSpec.parse(
        {
            "model": {"source": "builtin:vit", "dim": 64, "depth": 1, "heads": 2},
            "task": "builtin:digits",
            "recipe": RECIPE,
            "measure": {"repeats": 5, "test_examples": 64, "memory": False},
        }
    )
    return folder, spec, execute(spec, record, artifacts=ArtifactStore(str(folder), folder)), record


def test_masked_layers_are_packed_as_two_of_four(run):
    folder, _, stages, _ = run
    for stage in stages[1:3]:
        packed = load_models(folder / stage.artifact)["main"]
        layers = [module for module in packed.modules() if isinstance(module, SparseLinear)]
        assert len(layers) == 6  # q, k, v, o, up, down
        assert {(layer.layout.n, layer.layout.m) for layer in layers} == {(2, 4)}
        assert stage.measured.reload_max_error == 0


def test_payload_is_values_and_three_bits_a_group(run):
    folder, _, stages, _ = run
    dense, sparse = (tensor_payload(folder / stages[i].artifact / PACKED) for i in (0, 1))
    subject = load_subject(folder / stages[1].artifact, load_task(run[1].task), torch.device("cpu"))
    weights = sum(weight.numel() for weight in prunable_weights(subject.model).values())
    assert dense - sparse == 4 * weights - (2 * weights + 3 * weights / 4 / 8)


def test_masks_survive_every_later_step(run):
    folder, spec, stages, _ = run
    first, second = (
        load_subject(folder / stages[i].artifact, load_task(spec.task), torch.device("cpu")) for i in (1, 2)
    )
    rounded = load_models(folder / stages[3].artifact)["main"]
    for name, weight in prunable_weights(second.model).items():
        mask = first.mask(name)
        assert (mask.view(-1, 4).sum(1) == 2).all()
        assert torch.equal(second.mask(name), mask)
        assert not weight[~mask].any()
        assert not torch.equal(weight, first.model.get_parameter(name))
        assert not rounded.get_submodule(name.removesuffix(".weight")).weight()[~mask].any()


def test_integer_codes_of_pruned_layers_are_stored_without_the_zeros(run):
    folder, spec, stages, _ = run
    packed = load_models(folder / stages[3].artifact)["main"]
    layers = {name: module for name, module in packed.named_modules() if isinstance(module, SparseQuantLinear)}
    assert len(layers) == 6
    assert stages[3].measured.reload_max_error == 0
    tensors = load_file(folder / stages[3].artifact / PACKED)
    stored = sum(
        t.nbytes for name, t in tensors.items() if name.startswith(tuple(f"main.{layer}." for layer in layers))
    )
    trained = load_subject(folder / stages[2].artifact, load_task(spec.task), torch.device("cpu"))
    weights = sum(weight.numel() for weight in prunable_weights(trained.model).values())
    codes_and_places = weights / 2 + weights / 4 * 3 / 8
    scales_and_biases = sum(module.out_features * (2 + 4) for module in layers.values())
    assert codes_and_places <= stored - scales_and_biases < 1.03 * codes_and_places
    again = load_subject(folder / stages[3].artifact, load_task(spec.task), torch.device("cpu"))
    Cast().apply(again, context(again))
    for name, module in layers.items():
        assert torch.equal(again.model.get_submodule(name).weight(), module.weight())


def test_int8_layers_are_stored_without_the_zeros_and_run_by_their_kernel(run, tmp_path):
    folder, spec, stages, _ = run
    task = load_task(spec.task)
    described = models.describe(spec.model, task)
    task.prepare(described.input_format)
    subject = load_subject(folder / stages[2].artifact, task, torch.device("cpu"))
    images = task.split("test").batch(torch.arange(8))["pixel_values"]
    DynamicInt8().apply(subject, context(subject))
    expected = subject.model(images)
    save(subject, tmp_path, described)
    packed = load_models(tmp_path)["main"]
    assert torch.equal(packed(images), expected)
    layers = [module for module in packed.modules() if isinstance(module, SparseDynamicInt8Linear)]
    assert len(layers) == 6
    for layer in layers:
        weights = layer.in_features * layer.out_features
        assert (layer.codes.nbytes, layer.places.nbytes) == (weights // 2, weights // 4 * 3 // 8)
        assert layer._kernel is not None or layer.kernel(torch.device("cpu"), torch.float32) is None


def test_rows_by_layer_and_curves_are_recorded(run):
    _, _, stages, record = run
    rows = stages[1].measured.details["layers"]
    assert [row["sparsity"] for row in rows] == [0.5] * 6
    assert {"1/mask divergence", "1/distillation"} <= set(record.curves)
    assert Manifest.read(run[0] / stages[1].artifact).working is not None
