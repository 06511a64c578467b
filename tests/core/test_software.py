"""Which changes of the code make stages be computed again."""

import shutil

import pytest

from core.software import CORE, NOT_COMPUTING, digest
from tests import layout


@pytest.fixture
def copy(tmp_path):
    """A copy of core/, to change."""
    return shutil.copytree(CORE, tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))


def changed_by(copy, name) -> bool:
    before = digest(copy)
    file = copy / name
    file.write_text(f"{file.read_text()}# another comment\n")
    return digest(copy) != before


@pytest.mark.parametrize(
    "name",
    [
        "algorithms/masks.py", "artifacts/artifact.py", "calibration/inputs.py", "context.py", "engine/pipeline.py",
        "measure/score.py", "models/gpt.py", "nn/transformer.py", "runtimes/eager.py", "subject.py", "tasks/base.py",
        "technique.py", "techniques/quantization/rtn.py", "training/loop.py",
    ],
)  # fmt: skip
def test_a_change_of_what_computes_a_stage_changes_its_key(copy, name):
    assert changed_by(copy, name)


@pytest.mark.parametrize(
    "name",
    [
        "analysis/pareto.py", "analysis/decision/policy.py", "bundle/write.py", "complexity/fit.py", "publish.py",
        "publish_settings.py", "spec/schema_validation.py", "store/queue.py", "tasks/preview.py",
    ],
)  # fmt: skip
def test_a_change_of_what_reads_or_keeps_results_leaves_it(copy, name):
    assert not changed_by(copy, name)


def test_nothing_that_the_pipeline_loads_is_left_out():
    known = layout.modules(layout.ROOT, "core")
    loaded, ahead = set(), ["core.engine.pipeline"]
    while ahead:
        module = ahead.pop()
        if module not in loaded:
            loaded.add(module)
            ahead += layout.imported(known[module], known)
    files = {known[module].relative_to(CORE).as_posix() for module in loaded}
    assert not {file for file in files if file.startswith(NOT_COMPUTING)}
