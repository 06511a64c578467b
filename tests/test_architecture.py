"""The rules of the house: which room may know which."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.families import Family
from core.publish import DOCUMENT, catalogue, document
from core.spec.catalogue import FILE
from core.techniques.catalogue import TECHNIQUES

ROOT = Path(__file__).parent.parent
TORCH_FREE = [
    "core.spec.model", "core.errors", "core.settings", "core.families", "core.measured", "core.spec.catalogue", "core.spec.schema_validation",
    "core.analysis.pareto", "core.artifacts.store", "core.store.engine", "core.store.listing", "core.store.tradeoffs.queries",
    "core.tasks.preview", "core.tasks.upload", "worker.celery_app", "app.actions.runs", "app.queries.common", "app.screens.submit.forms", "app.cli.main",
    "app.actions.bundles", "app.exports.frames", "app.exports.html",
    "app.charts.tradeoffs", "app.charts.waterfall", "app.charts.curves",
    "app.charts.architectures", "core.complexity.report",
]  # fmt: skip


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_the_front_end_and_what_it_reads_load_no_torch(module):
    assert "torch" not in loaded_by(module)


def test_core_loads_neither_streamlit_nor_celery():
    assert loaded_by("core.engine.pipeline").isdisjoint({"streamlit", "celery", "app", "worker"})


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_one_way():
    for file in (ROOT / "core").rglob("*.py"):
        assert not {name for name in imports(file) if name.split(".")[0] in {"app", "worker"}}, file
    for file in (ROOT / "worker").rglob("*.py"):
        assert not {name for name in imports(file) if name.split(".")[0] == "app"}, file
    for file in (ROOT / "app").rglob("*.py"):
        worker = {name for name in imports(file) if name.split(".")[0] == "worker"}
        assert all(name.startswith("worker.celery_app") for name in worker), file


def test_a_technique_knows_neither_the_store_nor_another_family():
    for file in (ROOT / "core" / "techniques").glob("*/*.py"):
        family = file.parent.name
        for name in imports(file):
            assert not name.startswith("core.store"), file
            parts = name.split(".")
            if parts[:2] == ["core", "techniques"] and len(parts) > 4:
                assert parts[2] == family, f"{file} imports {name}"


def test_every_page_is_one_flat_script():
    for file in (ROOT / "app" / "screens").glob("*.py"):
        assert not [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)], file


@pytest.mark.parametrize("name", TECHNIQUES)
def test_every_technique_has_a_paper_a_docstring_and_a_test_file(name):
    technique = TECHNIQUES[name]
    assert technique.paper.startswith("https://")
    assert technique.__doc__ and technique.__doc__ != TECHNIQUES["train"].__mro__[1].__doc__
    place = Path(sys.modules[technique.__module__].__file__).relative_to(ROOT)
    assert place.stem == name, "a technique's file is called as it is"
    assert (ROOT / "tests" / place.parent / f"test_{place.name}").exists()
    for field, info in technique.model_fields.items():
        assert info.description, f"{name}.{field} has no description"


def test_every_family_has_a_technique():
    assert {known.family for known in TECHNIQUES.values()} == set(Family)


def test_the_published_catalogue_and_the_documentation_are_those_of_the_code():
    described = catalogue(plugins=False)
    assert json.loads(FILE.read_text()) == described, "run `python -m core.publish`"
    assert DOCUMENT.read_text() == document(described["techniques"]), "run `python -m core.publish`"
