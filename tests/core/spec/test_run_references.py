from core.spec.run_references import NamedRun, list_named_runs
from tests import factories


def spec(**changes):
    return factories.spec(**changes).to_dict()


def test_a_spec_without_runs_names_none():
    assert list_named_runs(spec(name="run:3")) == []


def test_model_and_reference():
    assert list_named_runs(spec(model="run:3", reference={"source": "run:4"})) == [
        NamedRun(3, "model", 0),
        NamedRun(4, "reference", -1),
    ]


def test_a_teacher_is_named_with_its_step_however_deep_it_stands():
    recipe = [{"rtn": {}}, {"train": {"methods": [{"distil": {"teacher": "run:7"}}, {"x": {"draft": ["run:8"]}}]}}]
    assert list_named_runs(spec(recipe=recipe)) == [NamedRun(7, "teacher", 2), NamedRun(8, "draft", 2)]


def test_each_role_of_a_run_once():
    recipe = [{"cofi": {"teacher": {"source": "run:7"}, "other": "run:7"}}]
    found = list_named_runs(spec(model={"source": "run:7", "recipe": [{"cofi": {"teacher": "run:7"}}]}, recipe=recipe))
    assert found == [
        NamedRun(7, "model", 0),
        NamedRun(7, "teacher", 0),
        NamedRun(7, "teacher", 1),
        NamedRun(7, "other", 1),
    ]


def test_what_only_looks_like_a_run_is_none():
    assert (
        list_named_runs({"model": {"source": "run:"}, "recipe": [{"x": {"a": "run:1.2", "b": "a run:3", "c": 5}}]})
        == []
    )
