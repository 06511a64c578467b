"""The rules of the layout: what may import what, how long files are, what is documented."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.families import Family
from core.publish import DOCUMENT, describe_catalogue, document
from core.spec.catalogue import FILE
from core.techniques.catalogue import TECHNIQUES
from tests import layout

ROOT = Path(__file__).parent.parent
TORCH_FREE = [
    "app.actions.bundles",
    "app.actions.runs",
    "app.charts.architectures",
    "app.charts.curves",
    "app.charts.tradeoffs",
    "app.charts.waterfall",
    "app.cli.main",
    "app.exports.frames",
    "app.exports.html",
    "app.queries.runs",
    "app.queries.tradeoffs",
    "app.screens.submit.forms",
    "core.analysis.pareto",
    "core.artifacts.store",
    "core.complexity.report",
    "core.errors",
    "core.families",
    "core.measured",
    "core.quantities",
    "core.scores",
    "core.settings",
    "core.spec.catalogue",
    "core.spec.model",
    "core.spec.schema_validation",
    "core.store.engine",
    "core.store.listing",
    "core.store.tradeoffs.queries",
    "core.tasks.preview",
    "core.tasks.upload",
    "worker.celery_app",
]
LAYERS = {  # from the bottom up: a package imports only from layers below its own
    "app": [
        {"text", "exports", "local"},
        {"charts", "queries"},
        {"actions"},
        {"web"},
        {"components"},
        {"screens"},
        {"cli", "main", "server"},
    ],
    "core": [
        {"disk", "errors", "families", "fresh_process", "integrity", "plugins", "rank_correlation", "scores"},
        {"settings"},
        {"measured", "publish_settings", "quantities", "software", "spec"},
        {"paired_tests"},
        {"nn"},
        {"allocation", "analysis", "tasks"},
        {"models", "store"},
        {"calibration", "runtimes", "subject"},
        {"artifacts", "context"},
        {"algorithms", "bundle", "measure", "technique"},
        {"provides", "training"},
        {"techniques"},
        {"engine", "publish"},
        {"complexity"},
    ],
}
SHARED_PAGES = {  # what a page shows of others: a report embeds their charts and tables
    "app.screens.reports": {"app.screens.compare", "app.screens.runs", "app.screens.tradeoffs"},
}
FILE_LINES, TECHNIQUE_LINES, FUNCTION_LINES = 300, 200, 40


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_the_front_end_and_what_it_reads_load_no_torch():
    code = (
        "import importlib, sys\n"
        f"for module in {sorted(TORCH_FREE)}:\n"
        "    importlib.import_module(module)\n"
        "    assert 'torch' not in sys.modules, module\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not answer.returncode, answer.stderr


def test_core_loads_neither_streamlit_nor_celery():
    assert loaded_by("core.engine.pipeline").isdisjoint({"streamlit", "celery", "app", "worker"})


def all_modules() -> dict[str, Path]:
    return {module: file for part in layout.PARTS for module, file in layout.modules(ROOT, part).items()}


def test_app_uses_worker_to_enqueue_and_both_use_core():
    known = all_modules()
    for module, file in known.items():
        part = module.partition(".")[0]
        for target in layout.imported(file, known):
            used = target.partition(".")[0]
            assert (
                (part, used) in {("app", "core"), ("worker", "core")}
                or part == used
                or (part == "app" and target in ("worker", "worker.celery_app"))
            ), f"{module} imports {target}"


@pytest.mark.parametrize("part", LAYERS)
def test_imports_point_down_the_layers(part):
    layer = {name: index for index, names in enumerate(LAYERS[part]) for name in names}
    found = layout.arrows(ROOT, part)
    assert {package.split(".")[1] for package in layout.modules(ROOT, part) if "." in package} == layer.keys()
    assert not layout.circles(found)
    for package, targets in found.items():
        for target, places in targets.items():
            below = layer[target.split(".")[1]] < layer[package.split(".")[1]]
            assert below or target in SHARED_PAGES.get(package, ()), sorted(places)


def test_queries_and_actions_know_no_streamlit():
    for folder in ("queries", "actions", "text", "charts"):
        for file in (ROOT / "app" / folder).rglob("*.py"):
            assert "streamlit" not in {name.partition(".")[0] for name in layout.imported_names(file)}, file


def test_a_technique_knows_neither_the_store_nor_another_family():
    known = layout.modules(ROOT, "core")
    for module, file in known.items():
        if module.startswith("core.techniques.") and module.count(".") == 3:
            for target in layout.imported(file, known):
                assert not target.startswith("core.store"), module
                if target.startswith("core.techniques.") and target.count(".") == 3:
                    assert target.rpartition(".")[0] == module.rpartition(".")[0], f"{module} imports {target}"


def test_files_and_functions_are_short():
    for module, file in all_modules().items():
        lines = len(file.read_text().splitlines())
        assert lines <= (TECHNIQUE_LINES if module.startswith("core.techniques.") else FILE_LINES), module
        assert not [(name, n) for name, n in layout.functions(file) if n > FUNCTION_LINES], module


def test_the_architecture_lists_every_module():
    text = (ROOT / layout.DOCUMENT).read_text()
    assert text == layout.with_list(text, layout.package_list(ROOT)), "run `python -m tests.layout --write`"


def test_every_page_is_one_flat_script():
    for file in (ROOT / "app" / "screens").glob("*/page.py"):
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
    described = describe_catalogue(plugins=False)
    assert json.loads(FILE.read_text()) == described, "run `python -m core.publish`"
    assert DOCUMENT.read_text() == document(described["techniques"]), "run `python -m core.publish`"
