"""What the documents show works as it stands there."""

import re
import types
from pathlib import Path

import pytest
import torch

from core.analysis.decision.policy import Policy
from core.context import Context
from core.engine.preflight import check
from core.engine.recording import MemoryRecord
from core.models import load
from core.publish import describe_settings
from core.runtimes.base import Refused
from core.spec.model import ModelSpec, RunSpec, TaskSpec
from core.subject import Subject
from core.tasks import load as load_task
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.pruning.families import subject_of

ROOT = Path(__file__).parents[1]


def example(document: str, language: str) -> str:
    """The first block of a language in a document."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_technique_that_is_added_as_an_example_prunes_rows():
    module = types.ModuleType("row_pruning")
    exec(compile(example("docs/add-a-technique.md", "python"), "row_pruning", "exec"), module.__dict__)
    assert module.row_mask(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), 0.5).tolist() == [[True, True], [False, False]]

    task = load_task(TaskSpec(source="builtin:digits"))
    model = ModelSpec.model_validate({"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2})
    loaded = load(model, task, torch.Generator().manual_seed(0))
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    weight = subject.model.get_parameter("blocks.0.ffn.up.weight")
    subject.constrain("blocks.0.ffn.up.weight", mask=torch.arange(weight.shape[1]).expand_as(weight) > 0)
    technique = module.RowPruning(pruning_ratio=0.25)
    technique.check(subject)
    technique.apply(subject, Context(torch.device("cpu"), task, "0", MemoryRecord(), resolve=None))
    mask = subject.mask("blocks.0.ffn.up.weight")
    assert (~mask.any(1)).float().mean() == 0.25
    assert not mask[:, 0].any()  # what was pruned before stays pruned
    assert torch.count_nonzero(weight) <= mask.sum()


def test_the_runtime_that_is_added_as_an_example_computes_in_16_bits():
    module = types.ModuleType("autocast")
    exec(compile(example("docs/add-a-runtime.md", "python"), "autocast", "exec"), module.__dict__)
    assert describe_settings(module.Autocast)["summary"] == "Plain PyTorch under automatic mixed precision."

    cpu, subject = torch.device("cpu"), subject_of("builtin vit", depth=1)
    batch = subject.task.batch(torch.arange(2))
    runtime = module.Autocast(computed="bfloat16")
    runner = runtime.load(subject.model, cpu, torch.float32, batch)
    assert runner(batch).dtype == torch.bfloat16
    assert module.Autocast(computed="float16").label() == "computed float16"
    Rtn(bits=8).apply(subject, context(subject))
    with pytest.raises(Refused, match="kernels of their own"):
        runtime.load(subject.model, cpu, torch.float32, batch)


def test_the_recipe_in_the_readme_can_run():
    spec = RunSpec.from_yaml(example("README.md", "yaml"))
    check(spec, load_task(spec.task))


def test_the_policy_in_the_operations_is_one():
    fields = [clause.field for clause in Policy.from_yaml(example("docs/operations.md", "yaml")).clauses()]
    assert {field.partition(".")[0].partition("[")[0] for field in fields} == set(Policy.model_fields)
