"""Hugging Face models through the whole pipeline: every family, saved locally by the test, compressed and measured."""

import pytest
import torch

from core.artifacts.store import ArtifactStore
from core.engine.pipeline import check, execute
from core.engine.recording import MemoryRecord
from core.measure.memory import Reload
from core.measure.stage import StageMeasurer
from core.spec.model import RunSpec

TASKS = {
    "llama": {"source": "builtin:python-docs", "length": 16},
    "opt": {"source": "builtin:python-docs", "length": 16},
    "gpt2": {"source": "builtin:python-docs", "length": 16},
    "vit": {"source": "builtin:digits"},
}
MEASURE = {"repeats": 5, "test_examples": 16, "decode_tokens": 4, "memory": False}


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(family, marks=pytest.mark.slow) for family in ("opt", "gpt2", "vit"))]
)
def test_a_checkpoint_is_pruned_trained_quantized_cast_and_measured_against_itself(family, checkpoint, tmp_path):
    _, folder = checkpoint(family)
    model = {"source": f"hf:{folder}"} | ({"new_head": True} if family == "vit" else {})
    train = {"train": {"steps": 2, "batch_size": 4, "evaluations": 0}}
    recipe = [train, {"nm_pruning": {"n": 2, "m": 4}}, train, {"rtn": {"bits": 4}}, {"cast": {"dtype": "bf16"}}]
    spec = RunSpec.parse({"model": model, "task": TASKS[family], "recipe": recipe, "measure": MEASURE})
    check(spec)
    record = MemoryRecord()
    stages = execute(spec, record, artifacts=ArtifactStore(str(tmp_path / "artifacts"), tmp_path))
    sizes = [stage.measured.size_bytes for stage in stages]
    assert sizes[2] < sizes[1] and sizes[4] < sizes[3] and sizes[5] < sizes[4]
    trained = [stage.measured for stage in stages if stage.measured.trained]
    assert all(stage.reload_max_error == 0 for stage in trained)
    first = 1 if family == "vit" else 0  # a checkpoint is its own reference; with a new head it must be trained first
    assert {stage.reference_key for stage in stages[first:]} == {stages[first].measured.key}
    assert stages[3].measured.nonzeros < stages[1].measured.nonzeros


def stages_of(folder, tmp_path, recipe: list, **settings: object) -> list:
    spec = RunSpec.parse(
        {"model": {"source": f"hf:{folder}", **settings}, "task": TASKS["llama"], "recipe": recipe, "measure": MEASURE}
    )
    record = MemoryRecord()
    return execute(spec, record, artifacts=ArtifactStore(str(tmp_path / "artifacts"), tmp_path))


@pytest.fixture
def no_reload(monkeypatch):
    """Leaves out the fresh process, which costs seconds; other tests reload artifacts."""
    monkeypatch.setattr("core.measure.memory.reload", lambda *_, **__: Reload(0.0, 1.0, 1.0, 1))


@pytest.mark.usefixtures("no_reload")
def test_a_16_bit_checkpoint_is_counted_timed_and_compressed_as_it_is(checkpoint, tmp_path):
    model, folder = checkpoint("llama")
    model.to(torch.bfloat16).save_pretrained(folder)
    stages = stages_of(folder, tmp_path, [{"rtn": {"bits": 8}}])
    whole, rounded = (stage.measured for stage in stages)
    assert whole.size_bytes == whole.checkpoint_bytes == 2 * whole.parameters
    assert whole.details["checkpoint"] == {"dtype": "bfloat16", "bytes": whole.size_bytes}
    assert rounded.checkpoint_bytes is None
    linears = [module for name, module in model.named_modules() if "layers" in name and hasattr(module, "in_features")]
    saved = sum(module.weight.numel() - 2 * module.out_features for module in linears)  # a byte less, a scale more
    assert rounded.size_bytes == whole.size_bytes - saved
    assert {row.dtype for stage in stages for row in stage.latencies} == {"bfloat16"}


@pytest.mark.usefixtures("no_reload")
def test_a_checkpoint_loaded_in_a_wider_dtype_is_counted_against_its_file(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(StageMeasurer, "_latencies", lambda *_: [])
    model, folder = checkpoint("llama")
    model.to(torch.bfloat16).save_pretrained(folder)
    (stage,) = stages_of(folder, tmp_path, [], dtype="float32")
    assert stage.measured.size_bytes == 2 * stage.measured.checkpoint_bytes


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_tied_table_is_packed_once_and_reloads_equal_in_a_fresh_process(family, checkpoint, tmp_path):
    _, folder = checkpoint(family)
    every = {"include_embeddings": True, "include_head": True}
    blocks, whole = ({"rtn": {"bits": 8} | more} for more in ({}, every))
    sizes = []
    for recipe in ([blocks], [whole, {"cast": {"dtype": "bf16"}}]):
        spec = RunSpec.parse(
            {"model": f"hf:{folder}", "task": TASKS[family], "recipe": recipe, "measure": MEASURE | {"memory": True}}
        )
        check(spec)
        stages = execute(spec, MemoryRecord(), artifacts=ArtifactStore(str(tmp_path / "artifacts"), tmp_path))
        assert all(stage.measured.reload_max_error == 0 for stage in stages)
        sizes.append(stages[1].measured.size_bytes)
    assert sizes[1] == sizes[0] - 64 * 32 * 4 + 64 * (32 + 2)  # float32 table -> int8 codes and float16 scales
