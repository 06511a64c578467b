"""What `slimboard run` refuses on this machine."""

import pytest

from app.cli import run
from core.engine import pipeline
from core.errors import SpecError
from core.runtimes import base
from core.spec.model import RunSpec


def test_a_runtime_that_is_not_installed_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(base, "installed_version", {"onnx": "1.17"}.get)
    monkeypatch.setattr(pipeline, "execute", lambda *_, **__: pytest.fail("computed something"))
    measure = {"runtimes": ["eager", "onnxruntime"]}
    spec = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "measure": measure})
    with pytest.raises(SpecError) as caught:
        run.execute(spec, "cpu")
    [problem] = caught.value.problems
    assert (problem.value, problem.message) == ("runtime onnxruntime", "requires onnxruntime, which is not here")
