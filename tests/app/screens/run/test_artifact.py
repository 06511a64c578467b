"""The lines of Python that come with an artifact."""

import torch

from app.screens.run.artifact import CODE
from core import models, tasks
from core.artifacts import artifact
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject


def saved(folder, dtype):
    """An artifact of a fresh small model in `dtype`."""
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:digits"}))
    spec = ModelSpec.model_validate({"source": "builtin:vit", "dim": 16, "depth": 1})
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    subject = Subject({"main": loaded.module.to(dtype)}, task, {"main": loaded.config}, trained=True)
    artifact.save(subject, folder, loaded)


def test_the_lines_load_an_artifact_and_find_what_it_answered(tmp_path, monkeypatch, capsys):
    saved(tmp_path / "run-7-stage-2", torch.bfloat16)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(CODE.format(folder="run-7-stage-2"), names)
    assert capsys.readouterr().out == "tensor(0.)\n"
    assert names["output"].shape == (artifact.PROBE_EXAMPLES, 10)
