"""What every runtime owes."""

import pytest
import torch

from core.errors import SpecError
from core.publish import describe_settings
from core.runtimes import base
from core.runtimes.base import Runtime, installed_version
from core.runtimes.catalogue import RUNTIMES, bind_runtime
from core.runtimes.eager import Eager
from core.spec.model import RuntimeSpec
from tests.core.techniques.pruning.families import subject_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", RUNTIMES)
def test_it_is_described_for_the_form(name):
    described = describe_settings(RUNTIMES[name])
    assert described["summary"] and described["summary"] != (Runtime.__doc__ or "")
    assert described["requires"] == sorted(RUNTIMES[name].requires)
    for field, info in RUNTIMES[name].model_fields.items():
        assert info.description, f"{name}.{field} has no description"
        assert not info.is_required(), "a runtime can be named without settings"


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_it_provides_only_what_it_requires(name, device):
    assert RUNTIMES[name].provided(device) <= RUNTIMES[name].requires


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES)
def test_it_executes_a_model_that_it_can_load(name):
    runtime = RUNTIMES[name]
    if runtime.requires - runtime.provided("cpu") - {"cpu"}:
        pytest.skip("not installed here")
    subject = subject_of("builtin vit", depth=1)
    example = {k: v for k, v in subject.task.batch(torch.arange(2)).items() if k != "labels"}
    runner = runtime().load(subject.model, CPU, torch.float32, example)
    with torch.inference_mode():
        output = runner(example)
        assert (runner.device, runner.dtype, runner.kernel) == (CPU, torch.float32, "dense")
        assert torch.allclose(torch.as_tensor(output), subject.model(**example), atol=1e-4)


def test_its_title_tells_the_settings_that_differ():
    assert bind_runtime(RuntimeSpec(name="compile"), "r").title == "compile"
    changed = RuntimeSpec(name="compile", settings={"mode": "max-autotune"})
    assert bind_runtime(changed, "r").title == "compile mode max-autotune"


def test_a_package_is_known_by_the_name_that_it_is_imported_by():
    assert installed_version("yaml") == installed_version("PyYAML") is not None
    assert installed_version("C++ compiler") is None


def test_a_device_is_not_a_package(monkeypatch):
    monkeypatch.setattr(base, "installed_version", lambda name: "1.0")  # a package called cuda
    wants_gpu = type("WantsGpu", (Runtime,), {"requires": frozenset({"cuda", "engine"})})
    assert wants_gpu.provided("cpu") == {"engine"}
    assert wants_gpu.software("cpu") == "engine 1.0"


def test_plain_pytorch_has_no_software_of_its_own():
    assert bind_runtime(RuntimeSpec(name="eager"), "r").software("cpu") == ""
    assert Eager.requires == frozenset()


@pytest.mark.parametrize(
    ("name", "settings", "field", "message"),
    [
        ("eagr", {}, "measure.runtimes[0]", "is not a known runtime"),
        ("compile", {"mode": "fast"}, "measure.runtimes[0].compile.mode", "must be "),
        ("eager", {"mode": "default"}, "measure.runtimes[0].eager.mode", "is not a known key"),
    ],
)
def test_what_is_wrong_is_named(name, settings, field, message):
    with pytest.raises(SpecError) as caught:
        bind_runtime(RuntimeSpec(name=name, settings=settings), "measure.runtimes[0]")
    [problem] = caught.value.problems
    assert problem.field == field and message in problem.message and problem.remedy
