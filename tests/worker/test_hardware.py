import psutil

from core.provides import provides
from core.runtimes import base
from core.spec.catalogue import KINDS, built_in
from worker import checking, hardware


def test_worker_offers_everything_that_this_installation_has():
    described = hardware.describe("cpu")
    assert set(described.provides) >= {"cpu"}
    assert "cuda" not in described.provides
    known = built_in()
    for kind in KINDS:
        for name, entry in getattr(known, kind).items():
            assert described.offers[f"{kind.removesuffix('s')}:{name}"] == entry["hash"]
    assert {kind for kind, *_ in described.entries} <= {"technique", "model", "task", "runtime"}
    assert 0 < described.hardware["memory_bytes"] <= psutil.virtual_memory().total
    assert described.hardware["versions"]["torch"]


def test_a_worker_provides_what_its_runtimes_require_where_it_is_installed(monkeypatch):
    versions = {"onnx": "1.17"}
    monkeypatch.setattr(base, "installed_version", versions.get)
    assert "onnx" in provides("cpu") and "onnxruntime" not in provides("cpu")
    versions["onnxruntime"] = "1.20"
    assert "onnxruntime" in provides("cpu")


def test_what_the_model_cannot_take_is_told_with_its_place():
    spec = {"model": {"source": "builtin:vit", "dim": 32, "depth": 1, "heads": 2}, "task": "builtin:digits"}
    assert checking.find_problems({**spec, "recipe": [{"train": {"steps": 1}}]}) == []
    [problem] = checking.find_problems({**spec, "recipe": [{"train": {"steps": -1}}]})
    assert problem.field.startswith("recipe[0]")
