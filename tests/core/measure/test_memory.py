import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import models, tasks
from core.artifacts import artifact
from core.fresh_process import FreshProcessError
from core.integrity import PACKED
from core.measure.memory import reload
from core.measure.size import tensor_payload
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    task = tasks.load(TaskSpec(source="builtin:digits"))
    spec = ModelSpec(source="builtin:vit", dim=128, depth=6)
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config}, trained=True)
    artifact.save(subject, folder, loaded)
    return folder


def test_an_artifact_loads_to_the_same_outputs_and_needs_at_least_its_weights(saved):
    found = reload(saved)
    payload = tensor_payload(saved / PACKED)
    assert found.error <= 1e-5 * found.scale
    if sys.platform == "linux":
        assert 0.95 * payload < found.peak_bytes < 2.5 * payload  # four examples' activations are small beside them


def test_a_stored_output_that_is_off_is_found(saved, tmp_path):
    for file in saved.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    probe = load_file(tmp_path / artifact.PROBE)
    probe["output"][1, 2] += 0.5
    save_file(probe, tmp_path / artifact.PROBE)
    assert reload(tmp_path).error == pytest.approx(0.5, abs=1e-3)


def test_an_artifact_that_does_not_load_says_why(saved, tmp_path):
    with pytest.raises(FreshProcessError, match="FileNotFoundError"):
        reload(tmp_path / "nowhere")
