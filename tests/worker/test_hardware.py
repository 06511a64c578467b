import psutil

from core.spec.catalogue import built_in
from worker import checking, hardware


def test_worker_offers_everything_that_this_installation_has():
    described = hardware.describe("cpu")
    assert set(described.provides) >= {"cpu"}
    assert "cuda" not in described.provides
    known = built_in()
    for kind, table in (("technique", known.techniques), ("model", known.models), ("task", known.tasks)):
        for name, entry in table.items():
            assert described.offers[f"{kind}:{name}"] == entry["hash"]
    assert {kind for kind, *_ in described.entries} <= {"technique", "model", "task"}
    assert 0 < described.hardware["memory_bytes"] <= psutil.virtual_memory().total
    assert described.hardware["versions"]["torch"]


def test_what_the_model_cannot_take_is_told_with_its_place():
    spec = {"model": {"source": "builtin:vit", "dim": 32, "depth": 1, "heads": 2}, "task": "builtin:digits"}
    assert checking.problems({**spec, "recipe": [{"train": {"steps": 1}}]}) == []
    [problem] = checking.problems({**spec, "recipe": [{"train": {"steps": -1}}]})
    assert problem.field.startswith("recipe[0]")
